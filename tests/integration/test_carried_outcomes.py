"""Outcomes that a backend carries back as the results of its jobs, in place of an event that is posted."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest

import wove
from tests.support.receiving import Receiving, receiving, signature
from wove import BackendAdapterEnvironmentExecutor, weave
from wove.backend.callbacks import Refusal
from wove.backend.frames import frame_to_bytes
from wove.backend.loop import on_io_loop
from wove.backend.payload import build_backend_payload, payload_to_b64
from wove.backend.returned import pack_outcome, unpack_outcome
from wove.backend.threads import in_daemon_thread
from wove.errors import DeliveryOrphanedError, TaskStopped
from wove.integrations import BackendAdapter, JobState
from wove.integrations.worker import arun, current_run, run

LARGEST = 4096


@pytest.fixture(autouse=True)
def _shut_down() -> Iterator[None]:
    yield
    wove.shutdown()


def event(run_id: str = "a", kind: str = "task_result", **values: Any) -> bytes:
    return frame_to_bytes({"type": kind, "run_id": run_id, "task_id": "report", **(values or {"result": 42})})


def signed(key: str | None, body: bytes, run_id: str = "a", **how: Any) -> bytes:
    assert key is not None
    return pack_outcome(signature(key, run_id, body, **how), body)


async def take(receiver: Receiving, outcome: Any, run_id: str = "a") -> None:
    await on_io_loop(receiver.session.take_outcome(run_id, outcome))


async def test_an_outcome_arrives_like_an_event_that_is_posted() -> None:
    async with receiving() as receiver:
        await take(receiver, signed(await receiver.open_run("a"), event()))
        assert await receiver.recv() == {"type": "task_result", "run_id": "a", "task_id": "report", "result": 42}


async def test_an_outcome_that_has_been_posted_too_counts_once() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        assert (await receiver.post(event(), key=key)).status == 200
        await take(receiver, signed(key, event()))
        assert len(await receiver.received_so_far()) == 1


async def test_a_second_outcome_is_refused() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await take(receiver, signed(key, event()))
        with pytest.raises(Refusal, match="over"):
            await take(receiver, signed(key, event(result=43), worker="w2"))
        assert len(await receiver.received_so_far()) == 1


async def test_the_outcome_of_a_closed_run_is_refused() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await receiver.close_run("a")
        with pytest.raises(Refusal, match="over"):
            await take(receiver, signed(key, event()))


async def test_the_clock_of_the_worker_s_host_does_not_matter() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await take(receiver, signed(key, event(), timestamp=time.time() - 86_400))
        assert (await receiver.recv())["result"] == 42


async def test_an_unsigned_outcome_is_refused_also_where_unsigned_events_are_taken() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        with pytest.raises(Refusal, match="must be signed"):
            await take(receiver, pack_outcome({}, event()))
        await take(receiver, signed(key, event()))
        assert len(await receiver.received_so_far()) == 1


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (lambda key: signed("another key", event()), "does not match"),
        (lambda key: pack_outcome(signature(key, "a", event()), event(result="of another length")), "does not match"),
        (lambda key: pack_outcome(signature(key, "a", event()), event(result=43)), "not the one that was signed"),
        (lambda key: signed(key, event("b")), "about another run"),
        (lambda key: signed(key, event(kind="heartbeat", lease=1)), "final event of its own run"),
        (lambda key: pack_outcome({}, event()), "must be signed"),
        (lambda key: b"[1]\n" + event(), "no headers"),
        (lambda key: b"42", "no headers"),
        (lambda key: b"\x80\x04N.", "not JSON"),
        (lambda key: b"[" * 10_000, "too long"),
        (lambda key: None, "not NoneType"),
    ],
)
async def test_what_is_no_outcome_of_the_run_is_refused_and_the_run_goes_on(
    outcome: Callable[[str | None], object], why: str
) -> None:
    async with receiving(callback_security="signed") as receiver:
        key = await receiver.open_run("a")
        await receiver.open_run("b")
        with pytest.raises(Refusal, match=why):
            await take(receiver, outcome(key))
        await take(receiver, signed(key, event()))
        assert (await receiver.recv())["result"] == 42


async def test_the_outcome_of_one_job_is_no_other_s() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await receiver.open_run("b")
        with pytest.raises(Refusal, match="final event of its own run"):
            await take(receiver, signed(key, event()), run_id="b")


async def test_an_outcome_that_is_too_large_is_refused() -> None:
    async with receiving(callback_max_bytes=200) as receiver:
        key = await receiver.open_run("a")
        with pytest.raises(Refusal, match="callback_max_bytes is 200"):
            await take(receiver, signed(key, event(result="x" * 200)))


async def test_an_outcome_that_is_posted_after_it_was_carried_counts_once() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await take(receiver, signed(key, event()))
        assert (await receiver.post(event(), key=key)).status == 200
        assert len(await receiver.received_so_far()) == 1


async def test_pickles_are_refused_where_results_are_json() -> None:
    async with receiving(results="json") as receiver:
        await take(receiver, signed(await receiver.open_run("a"), event(result={1, 2})))
        frame = await receiver.recv()
        assert frame["type"] == "task_error"
        assert "Pickles are refused" in frame["error"]["message"]


# --- the worker's side ---


async def payload_of(receiver: Receiving, function: Callable[..., Any]) -> dict[str, Any]:
    frame = {"type": "run_task", "run_id": "a", "task_id": "report", "callable": function, "args": {}}
    payload: dict[str, Any] = {**build_backend_payload(frame, callback_url=receiver.url, adapter="test")}
    payload["callback_key"] = await receiver.open_run("a")
    return payload


async def execute(payload: Mapping[str, Any], **options: Any) -> bytes | None:
    return await in_daemon_thread(lambda: run(payload, delivered_once=True, **options))


async def execute_async(payload: Mapping[str, Any], **options: Any) -> bytes | None:
    return await arun(payload, delivered_once=True, **options)


@pytest.mark.parametrize("entry", [execute, execute_async])
async def test_a_small_outcome_is_returned_and_nothing_is_posted(entry: Callable[..., Any]) -> None:
    async with receiving() as receiver:
        outcome = await entry(await payload_of(receiver, lambda: 42), returns=LARGEST)
        assert await receiver.received_so_far() == []
        await take(receiver, outcome)
        assert (await receiver.recv())["result"] == 42


async def test_an_exception_is_returned_too() -> None:
    async with receiving() as receiver:
        outcome = await execute(await payload_of(receiver, lambda: 1 / 0), returns=LARGEST)
        await take(receiver, outcome)
        assert isinstance((await receiver.recv())["exception"], ZeroDivisionError)


@pytest.mark.parametrize("options", [{}, {"returns": LARGEST}])
async def test_a_large_outcome_is_posted_as_all_are_by_default(options: dict[str, int]) -> None:
    async with receiving() as receiver:
        assert await execute(await payload_of(receiver, lambda: "x" * LARGEST), **options) is None
        assert (await receiver.recv())["result"] == "x" * LARGEST


async def test_that_a_task_was_stopped_is_posted() -> None:
    def task() -> None:
        raise TaskStopped

    async with receiving() as receiver:
        assert await execute(await payload_of(receiver, task), returns=LARGEST) is None
        assert (await receiver.recv())["type"] == "task_cancelled"


async def test_only_a_job_that_is_delivered_once_returns_its_outcome() -> None:
    async with receiving() as receiver:
        with pytest.raises(ValueError, match="returns is for jobs that are delivered once"):
            run(await payload_of(receiver, lambda: 42), returns=LARGEST)


def test_an_outcome_in_bytes_keeps_headers_and_body() -> None:
    outcome = pack_outcome({"Webhook-Id": "a.b.1"}, b'{"a":\n1}')
    assert unpack_outcome(outcome) == ({"webhook-id": "a.b.1"}, b'{"a":\n1}')


SIGNALLED = """
import os, signal, sys
from unittest import mock
from wove.backend import payload_from_b64
from wove.backend.returned import pack_outcome
from wove.integrations.worker import run

HANDLER


def signalled(headers, body):
    # The task has ended, and its outcome is about to be returned.
    os.kill(os.getpid(), signal.SIGTERM)
    return pack_outcome(headers, body)


with mock.patch("wove.backend.events.pack_outcome", signalled):
    print(run(payload_from_b64(sys.argv[1]), delivered_once=True, returns=4096) is not None)
"""
LEAVING = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
DEAF = "signal.signal(signal.SIGTERM, lambda *_: None)"


async def signalled(receiver: Receiving, handler: str) -> "subprocess.CompletedProcess[str]":
    program = SIGNALLED.replace("HANDLER", handler)
    command = [sys.executable, "-c", program, payload_to_b64(await payload_of(receiver, lambda: 42))]
    return await in_daemon_thread(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    )


@pytest.mark.parametrize(("handler", "code"), [("", -signal.SIGTERM), (LEAVING, 3)], ids=["default", "raises"])
async def test_an_outcome_that_sigterm_keeps_from_being_returned_is_posted(handler: str, code: int) -> None:
    async with receiving() as receiver:
        done = await signalled(receiver, handler)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
        assert [frame["result"] for frame in await receiver.received_so_far()] == [42]


async def test_an_outcome_is_returned_where_sigterm_does_not_end_the_worker() -> None:
    async with receiving() as receiver:
        done = await signalled(receiver, DEAF)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
        assert await receiver.received_so_far() == []


# --- an adapter's side ---


class CarryingAdapter(BackendAdapter):
    """Executes a payload at once, and has its result when it is asked."""

    carries_outcomes = True
    poll_interval = 0.01
    spoils = False

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        outcome = await execute(payload, returns=LARGEST)
        return b"spoilt" if self.spoils else outcome

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        return {run_id: JobState("finished", outcome=outcome) for run_id, outcome in submissions.items()}


class SpoilingAdapter(CarryingAdapter):
    """Changes the results of its jobs."""

    spoils = True


class RepeatingAdapter(CarryingAdapter):
    """Tells of the end of each job twice when it comes, and again when it is asked."""

    async def start(self) -> None:
        self._ends: asyncio.Queue[tuple[str, JobState]] = asyncio.Queue()

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        outcome = await super().submit(payload, frame)
        for _ in range(2):
            self._ends.put_nowait((payload["run_id"], JobState("finished", outcome=outcome)))
        return outcome

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        while True:
            yield await self._ends.get()


class LateAdapter(RepeatingAdapter):
    """Carries the outcome of a first attempt back only when there is a second one, as that of both."""

    held: tuple[str, bytes] | None = None

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        outcome = await execute(payload, returns=LARGEST)
        assert outcome is not None
        if self.held is None:
            self.held = payload["run_id"], outcome
            return None
        earlier, late = self.held
        for run_id, what in ((earlier, late), (payload["run_id"], late), (payload["run_id"], outcome)):
            self._ends.put_nowait((run_id, JobState("finished", outcome=what)))
        return outcome

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        # The job of the first attempt has ended, and its outcome is on its way.
        return {run_id: JobState("finished") for run_id, outcome in submissions.items() if outcome is None}


def use(adapter: type[BackendAdapter]) -> None:
    executor = BackendAdapterEnvironmentExecutor("carrying", adapter_class=adapter)
    there = {"executor": executor, "executor_config": {"dead_job_grace": 0.1}}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": there})


def test_an_adapter_gives_an_outcome_back_with_the_state_of_its_job() -> None:
    use(CarryingAdapter)
    with weave() as w:

        @w.do(range(20), environment="there")
        def double(item: int) -> int:
            return 2 * item

    assert w.result.double == [2 * item for item in range(20)]


def test_an_outcome_that_is_carried_again_and_again_counts_once() -> None:
    use(RepeatingAdapter)
    with weave() as w:

        @w.do(range(20), environment="there")
        def double(item: int) -> int:
            return 2 * item

    assert w.result.double == [2 * item for item in range(20)]


def test_a_late_outcome_of_an_earlier_attempt_is_no_other_s() -> None:
    use(LateAdapter)
    with weave() as w:

        @w.do(environment="there", retries=1)
        def attempt() -> int:
            run = current_run()
            assert run is not None
            return run.attempt

    assert w.result.attempt == 2


def test_an_outcome_that_is_refused_is_the_reason_why_the_run_is_lost() -> None:
    use(SpoilingAdapter)
    with weave() as w:

        @w.do(environment="there")
        def report() -> int:
            return 1

    with pytest.raises(DeliveryOrphanedError, match="its outcome is refused"):
        _ = w.result.report
