"""Deliveries whose outcome a backend carries back although it may deliver a job again."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support.receiving import Receiving, receiving
from wove.backend.carried_run import CarriedRun, execute_carried
from wove.backend.connections import connections
from wove.backend.loop import on_io_loop
from wove.backend.payload import build_backend_payload
from wove.backend.spool import spool
from wove.backend.threads import in_daemon_thread
from wove.errors import DeliveryError
from wove.testing.servers import free_port

MOST = 4096


@pytest.fixture(autouse=True)
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield
    spool.cache_clear()
    connections().close()
    wove.shutdown()


async def payload_of(receiver: Receiving, function: Callable[..., Any], **more: Any) -> dict[str, Any]:
    key = await receiver.open_run("a")
    frame = {"type": "run_task", "run_id": "a", "task_id": "report", "callable": function, "args": {}}
    return {
        **build_backend_payload(frame, callback_url=receiver.url, adapter="test"),
        "callback_key": key,
        "results": "pickle",
        **more,
    }


async def test_an_outcome_is_carried_and_nothing_is_posted() -> None:
    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: 42), first_delivery=True)
        assert await in_daemon_thread(run.prepare)
        outcome = run.carried(run.execute(), most=MOST)
        run.close()
        assert outcome is not None
        assert outcome == run.outcome
        assert await receiver.received_so_far() == []
        await on_io_loop(receiver.session.take_outcome("a", outcome))
        assert (await receiver.recv())["result"] == 42


async def test_a_large_outcome_is_left_to_finish_which_posts_it() -> None:
    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: "x" * MOST), first_delivery=True)
        assert await in_daemon_thread(run.prepare)
        event = run.execute()
        assert run.carried(event, most=MOST) is None
        await in_daemon_thread(run.finish, event)
        run.close()
        assert (await receiver.recv())["result"] == "x" * MOST


async def test_an_outcome_that_the_receiver_finds_too_large_is_replaced_by_an_error() -> None:
    async with receiving(callback_max_bytes=2 * MOST) as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: "x" * 4 * MOST), first_delivery=True)
        assert await in_daemon_thread(run.prepare)
        event = run.execute()
        assert run.carried(event, most=MOST) is None
        await in_daemon_thread(run.finish, event)
        run.close()
        assert (await receiver.recv())["type"] == "task_error"


async def test_the_outcome_of_a_task_that_was_stopped_is_posted() -> None:
    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: 42), first_delivery=True)
        assert await in_daemon_thread(run.prepare)
        event = run.execute()
        run.stop()
        assert run.carried(event, most=MOST) is None
        await in_daemon_thread(run.finish, event)
        run.close()
        assert (await receiver.recv())["result"] == 42


async def test_an_outcome_is_carried_once() -> None:
    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: 42), first_delivery=True)
        assert await in_daemon_thread(run.prepare)
        event = run.execute()
        assert run.carried(event, most=MOST) is not None
        assert run.carried(event, most=MOST) is None
        await in_daemon_thread(run.finish, event)
        run.close()
        assert await receiver.received_so_far() == []


async def test_a_delivery_that_must_not_execute_hands_over_what_an_earlier_one_has_kept() -> None:
    async with receiving() as receiver:
        nowhere = {"callback_url": f"http://127.0.0.1:{free_port()}/wove/events/t", "callback_retry_seconds": 0.1}
        payload = await payload_of(receiver, lambda: 42, **nowhere)
        first = CarriedRun(payload)
        assert await in_daemon_thread(first.prepare)
        event = first.execute()
        with pytest.raises(DeliveryError):
            await in_daemon_thread(first.finish, event)
        first.close()
        again = CarriedRun(payload)
        with pytest.raises(DeliveryError):  # There is something to hand over, and still nobody who takes it.
            await in_daemon_thread(again.hand_over_kept)


async def test_a_delivery_that_must_not_execute_does_nothing_where_nothing_is_kept() -> None:
    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: 42))
        assert not await in_daemon_thread(run.hand_over_kept)
        assert await receiver.received_so_far() == []


# --- from a running event loop ---


async def _asynchronous() -> int:
    return 42


@pytest.mark.parametrize("function", [lambda: 42, _asynchronous], ids=["synchronous", "asynchronous"])
async def test_an_outcome_is_given_to_whoever_carries_it(function: Callable[..., Any]) -> None:
    given: list[bytes] = []

    async def carry(outcome: bytes) -> bool:
        given.append(outcome)
        return True

    async with receiving() as receiver:
        await execute_carried(
            CarriedRun(await payload_of(receiver, function), first_delivery=True, carries=MOST), carry
        )
        assert await receiver.received_so_far() == []
        (outcome,) = given
        await on_io_loop(receiver.session.take_outcome("a", outcome))
        assert (await receiver.recv())["result"] == 42


async def test_an_outcome_that_is_not_carried_is_posted_and_counts_once_if_it_has_been_carried_all_the_same() -> None:
    async with receiving() as receiver:

        async def carry(outcome: bytes) -> bool:
            await on_io_loop(receiver.session.take_outcome("a", outcome))
            return False

        await execute_carried(
            CarriedRun(await payload_of(receiver, lambda: 42), first_delivery=True, carries=MOST), carry
        )
        assert [frame["result"] for frame in await receiver.received_so_far()] == [42]


async def test_an_outcome_that_can_neither_be_carried_nor_posted_is_kept_for_another_delivery() -> None:
    async def carry(outcome: bytes) -> bool:
        return False

    async with receiving() as receiver:
        payload = await payload_of(receiver, lambda: 42)
        nowhere = {"callback_url": f"http://127.0.0.1:{free_port()}/wove/events/t", "callback_retry_seconds": 0.1}
        with pytest.raises(DeliveryError):
            await execute_carried(CarriedRun(payload | nowhere, first_delivery=True, carries=MOST), carry)
        again = CarriedRun(payload | nowhere, carries=MOST)
        with pytest.raises(DeliveryError):  # There is something to hand over, and still nobody who takes it.
            await in_daemon_thread(again.hand_over_kept)


async def test_large_outcomes_and_all_of_those_who_carry_nothing_are_posted() -> None:
    async def carry(outcome: bytes) -> bool:
        raise AssertionError

    for carries in (0, MOST):
        async with receiving() as receiver:
            payload = await payload_of(receiver, lambda: "x" * MOST)
            await execute_carried(CarriedRun(payload, first_delivery=True, carries=carries), carry)
            assert (await receiver.recv())["result"] == "x" * MOST


async def test_a_job_that_is_cancelled_while_its_outcome_is_carried_posts_it() -> None:
    carrying = asyncio.Event()

    async def carry(outcome: bytes) -> bool:
        carrying.set()
        await asyncio.Event().wait()
        return True

    async with receiving() as receiver:
        run = CarriedRun(await payload_of(receiver, lambda: 42), first_delivery=True, carries=MOST)
        job = asyncio.create_task(execute_carried(run, carry))
        await asyncio.wait_for(carrying.wait(), 30.0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert [frame["result"] for frame in await receiver.received_so_far()] == [42]
