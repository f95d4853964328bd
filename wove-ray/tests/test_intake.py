"""What becomes of tasks that are submitted together, without Ray."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from wove_ray.intake import Intake


class FakeRuns:
    """Submits what it is given, and notes how; refuses the run that is called so."""

    is_client = False

    def __init__(self) -> None:
        self.is_ready = True
        self.goes: list[list[str]] = []
        self.refused = ""

    def store(self, arguments: Sequence[object]) -> None: ...

    def submit(self, submissions: Sequence[tuple[dict[str, Any], Any]], returns: int = 0) -> list[str]:
        runs = [payload["run_id"] for payload, _ in submissions]
        if self.refused in runs:
            raise ConnectionError("Ray is away")
        self.goes.append(runs)
        return [f"{run} returns {returns}" if returns else run for run in runs]


class Bench:
    """An intake, and what it tells."""

    def __init__(self) -> None:
        self.runs = FakeRuns()
        self.tracked: list[Any] = []
        self.withdrawn: list[Any] = []
        runs: Any = self.runs
        self.intake = Intake(runs, track=self.tracked.append, withdraw=self.withdrawn.extend)

    def submit(self, names: str) -> Coroutine[Any, Any, list[Any]]:
        return self.intake.submit([({"run_id": name}, ()) for name in names])


def test_many_small_tasks_are_submitted_a_few_at_a_time() -> None:
    async def main() -> None:
        bench = Bench()
        assert await bench.submit("abcdefghij") == list("abcdefghij")
        assert bench.runs.goes == [list("abcd"), list("efgh"), list("ij")]
        assert bench.tracked == list("abcdefghij")

    asyncio.run(main())


def test_the_loop_has_a_turn_between_two_goes() -> None:
    async def main() -> None:
        bench = Bench()
        submitting = asyncio.create_task(bench.submit("abcdefgh"))
        await asyncio.sleep(0)
        assert bench.runs.goes == [list("abcd")]
        await submitting

    asyncio.run(main())


def test_what_is_large_or_not_quick_is_submitted_in_one_go_in_a_thread() -> None:
    async def main() -> None:
        bench = Bench()
        bench.runs.is_ready = False
        assert await bench.submit("abcdef") == list("abcdef")
        assert bench.runs.goes == [list("abcdef")]
        large = {"run_id": "large", "args_pickle": "x" * 100_000}
        bench.runs.is_ready = True
        assert bench.intake.submit_now((large, ())) is None

    asyncio.run(main())


def test_tasks_that_were_submitted_before_a_failure_stay() -> None:
    async def main() -> None:
        bench = Bench()
        bench.runs.refused = "f"
        *submitted, first, last = await bench.submit("abcdef")
        assert submitted == bench.tracked == list("abcd")
        assert first is last
        assert isinstance(last, ConnectionError)
        assert bench.withdrawn == []
        bench.runs.refused = "a"
        with pytest.raises(ConnectionError):
            await bench.submit("abcdef")

    asyncio.run(main())


def test_tasks_that_nobody_waits_for_any_more_are_withdrawn() -> None:
    async def main() -> None:
        bench = Bench()
        submitting = asyncio.create_task(bench.submit("abcdefgh"))
        await asyncio.sleep(0)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        assert bench.withdrawn == list("abcd")

    asyncio.run(main())


def test_a_task_is_submitted_at_once_the_way_that_is_asked_for() -> None:
    bench = Bench()
    submitted: Any = bench.intake.submit_now(({"run_id": "a"}, ()), returns=9)
    assert submitted == "a returns 9"
    assert bench.tracked == [submitted]
