"""How many jobs are submitted: one for each idempotency key, and no more at a time than allowed."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.adapters import MemoryAdapter
from tests.support.jobs import Jobs, contents, run
from wove import weave
from wove.errors import OptionError


def test_a_key_of_several_items_runs_once_and_answers_all(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(MemoryAdapter, delivery_idempotency_key="same-{item}")
    log = str(tmp_path / "log")

    def slow(item: int) -> int:
        import time

        with open(log, "a") as file:
            file.write("x")
        time.sleep(0.5)
        return item * 10

    with weave() as w:
        w.do([1, 1, 1, 2], environment="jobs")(slow)
    assert w.result.slow == [10, 10, 10, 20]
    assert contents(Path(log)) == "xx"
    assert {payload["delivery"]["delivery_idempotency_key"] for payload in jobs.ledger.payloads} == {"same-1", "same-2"}


def test_a_key_with_an_unknown_field_fails_its_task(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_idempotency_key="{acount}")
    with pytest.raises(OptionError, match="'acount' that is no argument"):
        run(lambda account=1: account)
    assert jobs.ledger.payloads == []


def test_no_more_jobs_are_in_flight_than_allowed(jobs: Jobs) -> None:
    most = [0, 0]
    guard = threading.Lock()

    class Counting(MemoryAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            with guard:
                most[0] += 1
                most[1] = max(most)
            return await super().submit(payload, frame)

    jobs.configure(Counting, delivery_max_in_flight=3)

    def item(number: int) -> int:
        time.sleep(0.02)
        with guard:
            most[0] -= 1
        return number

    # By reference, so that the worker's threads share this process's counter.
    globals()["counted_item"] = item
    item.__qualname__ = item.__name__ = "counted_item"
    with weave() as w:
        w.do(range(20), environment="jobs")(item)
    assert w.result.final == list(range(20))
    assert most[1] <= 3
