"""The kit notices adapters that break the contract."""

import asyncio
import inspect
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.support.inline import InlineDeployment
from wove.testing import AdapterConformance, InlineAdapter
from wove.testing.stage import Stage, StillRunning


def suite_of(adapter: type[InlineAdapter]) -> AdapterConformance:
    """A suite for an adapter, not collected by pytest."""

    class Suite(AdapterConformance):
        adapter_class = adapter
        fail_fast_seconds = 1.0
        step_seconds = 8.0

    return Suite()


def run_scenario(name: str, adapter: type[InlineAdapter], *, seconds: float = 8.0) -> None:
    deployment = InlineDeployment(adapter)
    with Stage(deployment, seconds=seconds) as stage:
        scenario = getattr(suite_of(adapter), name)
        given = {"deployment": deployment, "stage": stage}
        scenario(**{name: given[name] for name in inspect.signature(scenario).parameters})


class BlockingWhenDown(InlineAdapter):
    """Waits for its backend on the event loop."""

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        if not self.backend.reachable:
            time.sleep(0.3)  # noqa: ASYNC251
        return await super().submit(payload, frame)


class PatientWhenDown(InlineAdapter):
    """Waits for its backend for ever."""

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        if not self.backend.reachable:
            await asyncio.Event().wait()
        return await super().submit(payload, frame)


class Forgetful(InlineAdapter):
    """Claims to remove jobs, and does not."""

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Do nothing."""


class Meddling(InlineAdapter):
    """Changes the payload on its way."""

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        return await super().submit({**payload, "run_id": "another"}, frame)


class Boastful(InlineAdapter):
    """Declares a capability that does not exist, and explains another one away that it has declared."""

    capabilities = frozenset({*InlineAdapter.capabilities, "time_travel"})


def test_an_adapter_that_blocks_the_loop_is_found_out() -> None:
    with pytest.raises(AssertionError, match="background loop was blocked"):
        run_scenario("test_a_backend_that_went_away_fails_fast", BlockingWhenDown)


def test_an_adapter_that_waits_for_ever_is_found_out() -> None:
    with pytest.raises(StillRunning):
        run_scenario("test_a_backend_that_went_away_fails_fast", PatientWhenDown)


def test_an_adapter_that_leaves_jobs_behind_is_found_out() -> None:
    with pytest.raises(AssertionError, match="the backend holds nothing of ours any more"):
        run_scenario("test_the_job_of_a_task_that_was_given_up_is_removed", Forgetful)


def test_an_adapter_that_changes_payloads_is_found_out() -> None:
    with pytest.raises(StillRunning):
        run_scenario("test_a_synchronous_task_returns_its_value", Meddling, seconds=2.0)


def test_a_capability_that_does_not_exist_is_found_out() -> None:
    with pytest.raises(AssertionError, match="time_travel"):
        suite_of(Boastful).test_every_capability_is_declared_or_explained()


def test_a_capability_without_explanation_is_found_out() -> None:
    class Silent(InlineAdapter):
        limitations: ClassVar[Mapping[str, str]] = {}

    with pytest.raises(AssertionError, match="separate_process"):
        suite_of(Silent).test_every_capability_is_declared_or_explained()


def test_a_good_adapter_passes_what_these_fail() -> None:
    run_scenario("test_a_backend_that_went_away_fails_fast", InlineAdapter)
    run_scenario("test_the_job_of_a_task_that_was_given_up_is_removed", InlineAdapter)
    suite_of(InlineAdapter).test_every_capability_is_declared_or_explained()
