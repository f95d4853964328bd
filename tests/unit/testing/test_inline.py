"""The inline backend as a queue: order, removal, states, and bad treatment."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from wove.testing import InlineBackend
from wove.testing import inline as inline_module
from wove.testing.stage import poll_until


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    executed: list[Any] = []
    monkeypatch.setattr(inline_module, "run", lambda payload: executed.append(payload["name"]))
    return executed


@pytest.fixture
def backend() -> Iterator[InlineBackend]:
    backend = InlineBackend(workers=1)
    yield backend
    backend.pause()


def finish(backend: InlineBackend) -> None:
    poll_until(lambda: not backend.unfinished(), seconds=5.0, what="every job is done")


def test_jobs_are_executed_in_order_and_finish(backend: InlineBackend, executed: list[Any]) -> None:
    for name in ("one", "two", "three"):
        backend.put(name, {"name": name})
    finish(backend)
    assert executed == ["one", "two", "three"]
    state = backend.state("one")
    assert state is not None
    assert state.phase == "finished"


def test_a_job_is_taken_once(backend: InlineBackend, executed: list[Any]) -> None:
    backend.pause()
    backend.put("one", {"name": "first"})
    backend.put("one", {"name": "second"})
    backend.resume()
    finish(backend)
    assert executed == ["first"]


def test_a_removed_job_is_never_executed(backend: InlineBackend, executed: list[Any]) -> None:
    backend.pause()
    backend.put("one", {"name": "one"})
    backend.remove("one")
    assert backend.unfinished() == []
    backend.put("two", {"name": "two"})
    backend.resume()
    finish(backend)
    assert executed == ["two"]


def test_a_backend_that_is_down_answers_nobody(backend: InlineBackend) -> None:
    backend.reachable = False
    for call in (lambda: backend.put("one", {}), lambda: backend.remove("one"), lambda: backend.state("one")):
        with pytest.raises(ConnectionError, match="down"):
            call()


def test_a_job_that_raises_fails_and_the_worker_goes_on(
    backend: InlineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(payload: Any) -> None:
        raise SystemExit("enough")

    monkeypatch.setattr(inline_module, "run", explode)
    backend.put("one", {})
    backend.put("two", {})
    finish(backend)
    state = backend.state("two")
    assert state is not None
    assert (state.phase, state.reason) == ("failed", "SystemExit('enough')")


def test_a_job_may_be_executed_twice(backend: InlineBackend, executed: list[Any]) -> None:
    backend.put("one", {"name": "one"}, "duplicate")
    finish(backend)
    assert executed == ["one", "one"]


def test_later_jobs_overtake_one_that_is_reordered(backend: InlineBackend, executed: list[Any]) -> None:
    backend.pause()
    backend.put("one", {"name": "one"}, "reorder")
    backend.put("two", {"name": "two"})
    backend.resume()
    finish(backend)
    assert executed == ["two", "one"]


def test_what_is_forgotten_stays_queued_and_what_is_lost_is_gone(backend: InlineBackend, executed: list[Any]) -> None:
    backend.put("one", {"name": "one"}, "drop")
    backend.put("two", {"name": "two"}, "lose")
    backend.put("three", {"name": "three"})
    poll_until(lambda: executed == ["three"], seconds=5.0, what="the third has run")
    phases = [state.phase for name in ("one", "two") if (state := backend.state(name)) is not None]
    assert phases == ["queued", "gone"]


def test_a_pickled_backend_is_a_new_one(backend: InlineBackend) -> None:
    backend.pause()
    backend.put("one", {})
    assert pickle.loads(pickle.dumps(backend)).unfinished() == []
