"""Submissions one by one, and in bulk where the adapter can."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.virtual_time import in_virtual_time
from wove.environment.submitting import Submitter
from wove.errors import DeliveryError
from wove.integrations.base import BackendAdapter


class Single(BackendAdapter):
    def __init__(self) -> None:
        super().__init__(name="single", config={}, callback_url="", run_config={})
        self.singles: list[str] = []

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        self.singles.append(payload["run_id"])
        return f"job {payload['run_id']}"


class Bulk(Single):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.seconds = 0.1
        self.refused: dict[str, Exception] = {}
        self.failure: Exception | None = None
        self.missing = 0

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence[Any]:
        runs = [payload["run_id"] for payload, _ in submissions]
        self.batches.append(runs)
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return [self.refused.get(run, f"job {run}") for run in runs][self.missing :]


def submissions(submitter: Submitter, *runs: str) -> "list[asyncio.Task[Any]]":
    return [asyncio.create_task(submitter.submit({"run_id": run}, {})) for run in runs]


@in_virtual_time
async def test_an_adapter_without_bulk_gets_each_payload() -> None:
    adapter = Single()
    assert await asyncio.gather(*submissions(Submitter(adapter), "a", "b")) == ["job a", "job b"]
    assert adapter.singles == ["a", "b"]


@in_virtual_time
async def test_payloads_that_are_ready_together_are_submitted_together() -> None:
    adapter = Bulk()
    assert await asyncio.gather(*submissions(Submitter(adapter), "a", "b", "c")) == ["job a", "job b", "job c"]
    assert adapter.batches == [["a", "b", "c"]]


@in_virtual_time
async def test_a_payload_alone_is_submitted_alone() -> None:
    adapter = Bulk()
    assert await Submitter(adapter).submit({"run_id": "a"}, {}) == "job a"
    assert (adapter.singles, adapter.batches) == (["a"], [])


@in_virtual_time
async def test_while_a_batch_is_on_its_way_the_next_one_gathers_for_a_millisecond() -> None:
    adapter = Bulk()
    submitter = Submitter(adapter)
    first = submissions(submitter, "a", "b")
    await asyncio.sleep(0.01)
    later = submissions(submitter, "c")
    await asyncio.sleep(0.0005)
    later += submissions(submitter, "d")
    await asyncio.gather(*first, *later)
    assert adapter.batches == [["a", "b"], ["c", "d"]]
    # The second did not wait for the end of the first.
    assert asyncio.get_running_loop().time() < 0.15


@in_virtual_time
async def test_a_refused_payload_is_refused_alone() -> None:
    adapter = Bulk()
    adapter.refused["b"] = refusal = ValueError("too long")
    results = await asyncio.gather(*submissions(Submitter(adapter), "a", "b", "c"), return_exceptions=True)
    assert results == ["job a", refusal, "job c"]


@in_virtual_time
async def test_a_failed_batch_fails_each_of_its_payloads() -> None:
    adapter = Bulk()
    adapter.failure = failure = ConnectionError("broker is gone")
    results = await asyncio.gather(*submissions(Submitter(adapter), "a", "b"), return_exceptions=True)
    assert results == [failure, failure]


@in_virtual_time
async def test_an_adapter_that_forgets_a_result_is_told_so() -> None:
    adapter = Bulk()
    adapter.missing = 1
    with pytest.raises(DeliveryError, match="returned 1 results for 2 submissions"):
        await asyncio.gather(*submissions(Submitter(adapter), "a", "b"))


@in_virtual_time
async def test_one_who_waits_no_longer_is_left_out_of_the_next_batch() -> None:
    adapter = Bulk()
    submitter = Submitter(adapter)
    first = submissions(submitter, "a", "b")
    await asyncio.sleep(0.01)
    later = submissions(submitter, "c", "d", "e")
    await asyncio.sleep(0)
    later[1].cancel()
    await asyncio.gather(*first, *later, return_exceptions=True)
    assert adapter.batches == [["a", "b"], ["c", "e"]]


@in_virtual_time
async def test_closing_ends_what_is_on_its_way() -> None:
    adapter = Bulk()
    adapter.seconds = 1000.0
    submitter = Submitter(adapter)
    waiting = submissions(submitter, "a", "b")
    await asyncio.sleep(0.01)
    await submitter.close()
    await asyncio.wait(waiting)
    assert all(each.cancelled() for each in waiting)


class AtOnce(Bulk):
    """One that submits without waiting, but for runs that are called large."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once: list[str] = []

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        if payload["run_id"] == "large":
            return None
        self.at_once.append(payload["run_id"])
        return f"job {payload['run_id']}"


@in_virtual_time
async def test_a_payload_that_comes_alone_is_submitted_at_once_where_the_adapter_can() -> None:
    submitter = Submitter(AtOnce())
    for run in ("a", "b"):
        assert submitter.submit_now({"run_id": run}, {}) == f"job {run}"
        await asyncio.sleep(0)


@in_virtual_time
async def test_of_payloads_that_come_together_one_is_submitted_at_once() -> None:
    adapter = AtOnce()
    submitter = Submitter(adapter)
    assert [submitter.submit_now({"run_id": run}, {}) for run in "abc"] == ["job a", None, None]
    assert await asyncio.gather(*submissions(submitter, "b", "c")) == ["job b", "job c"]
    assert (adapter.at_once, adapter.batches) == (["a"], [["b", "c"]])


@in_virtual_time
async def test_nothing_is_submitted_at_once_while_a_batch_is_on_its_way() -> None:
    submitter = Submitter(AtOnce())
    batch = submissions(submitter, "a", "b")
    await asyncio.sleep(0.01)
    assert submitter.submit_now({"run_id": "c"}, {}) is None
    await asyncio.gather(*batch)


@in_virtual_time
async def test_what_the_adapter_does_not_submit_at_once_is_submitted_the_usual_way() -> None:
    assert Submitter(AtOnce()).submit_now({"run_id": "large"}, {}) is None


@in_virtual_time
async def test_a_subclass_with_a_submit_of_its_own_is_not_passed_over() -> None:
    class Counting(AtOnce):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            return await super().submit(payload, frame)

    assert Submitter(Counting()).submit_now({"run_id": "a"}, {}) is None
    assert Submitter(Single()).submit_now({"run_id": "a"}, {}) is None
