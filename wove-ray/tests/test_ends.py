"""What is made of the ends that Ray tells."""

import pytest
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from wove.errors import DeliveryGivenUpError
from wove_ray.ends import state_of


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("execute", "Traceback ...", cause)


def test_a_task_that_returns_is_finished() -> None:
    state = state_of(None)
    assert (state.phase, state.grace) == ("finished", None)


@pytest.mark.parametrize("error", [TaskCancelledError(), raised(TaskCancelledError())])
def test_a_cancelled_task_is_cancelled(error: Exception) -> None:
    assert state_of(error).phase == "cancelled"


@pytest.mark.parametrize(
    "error", [WorkerCrashedError(), NodeDiedError("the node is gone"), OutOfMemoryError("used 15 of 16 GB")]
)
def test_a_dead_process_is_certain_and_says_how_it_died(error: Exception) -> None:
    state = state_of(error)
    assert (state.phase, state.grace) == ("failed", 0.5)
    assert (state.reason or "").startswith(f"{type(error).__name__}: ")


def test_a_worker_s_own_error_is_told_without_ray_s_wrapping() -> None:
    state = state_of(raised(DeliveryGivenUpError("nobody answers")))
    assert state.reason == "DeliveryGivenUpError: nobody answers"


@pytest.mark.parametrize("module", ["wove", "wove.integrations"])
def test_workers_without_wove_are_told_what_to_install(module: str) -> None:
    state = state_of(raised(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert "Ray's workers have no Wove: install wove-core[dispatch]" in (state.reason or "")


def test_long_explanations_are_cut_after_a_sentence_and_lose_their_colours() -> None:
    state = state_of(OutOfMemoryError("\x1b[36mUsed too much. \x1b[39m" + "Consider this. " * 100))
    reason = state.reason or ""
    assert reason.startswith("OutOfMemoryError: Used too much. Consider this.")
    assert reason.endswith("this.")
    assert len(reason) < 650


def test_a_value_that_ray_has_lost_is_a_failure() -> None:
    state = state_of(ObjectLostError("00ff", None, ""))
    assert (state.phase, state.grace) == ("failed", 0.5)
    assert "ObjectLostError" in (state.reason or "")
