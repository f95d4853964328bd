"""What becomes of a graph when a task fails: of its siblings, its descendants, and what has no thread yet."""

import asyncio
import threading

import pytest

from tests.support.virtual_time import in_virtual_time, now
from tests.support.waiting import SECONDS
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@in_virtual_time
async def test_the_first_failure_cancels_running_siblings_and_starts_nothing_more() -> None:
    happened: list[str] = []
    async with weave() as w:

        @w.do
        async def fails() -> None:
            await asyncio.sleep(1)
            raise LookupError("first")

        @w.do
        async def running() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                happened.append(f"running stopped at {now():.0f}")

        @w.do
        async def unrelated_later(running: None) -> None:
            happened.append("started")

    assert happened == ["running stopped at 1"]
    assert w.result.cancelled == {"running", "unrelated_later"}
    assert isinstance(w.result.exception, LookupError)


@in_virtual_time
async def test_a_task_that_ends_before_the_failure_keeps_its_result() -> None:
    async with weave() as w:

        @w.do
        async def quick() -> int:
            return 1

        @w.do
        async def fails() -> None:
            await asyncio.sleep(1)
            raise LookupError

    assert w.result.quick == 1
    assert w.result.cancelled == set()


@in_virtual_time
async def test_descendants_report_the_same_exception_object() -> None:
    error = LookupError("root")
    async with weave() as w:

        @w.do
        async def root() -> None:
            raise error

        @w.do
        async def child(root: None) -> None: ...

        @w.do
        async def grandchild(child: None) -> None: ...

    for name in ("root", "child", "grandchild"):
        with pytest.raises(LookupError) as caught:
            _ = w.result[name]
        assert caught.value is error
    assert w.result.cancelled == {"child", "grandchild"}


@in_virtual_time
async def test_a_descendant_of_several_failed_tasks_reports_the_first() -> None:
    async with weave() as w:

        @w.do
        async def late() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise RuntimeError("late, while being stopped") from None

        @w.do
        async def early() -> None:
            await asyncio.sleep(1)
            raise LookupError("early")

        @w.do
        async def both(late: None, early: None) -> None: ...

        @w.do
        async def only_late(late: None) -> None: ...

    w.result._unread = False
    with pytest.raises(LookupError, match="early"):
        _ = w.result.both
    with pytest.raises(RuntimeError, match="late, while being stopped"):
        _ = w.result.only_late
    assert [str(failure) for failure in w.result.failures] == ["early", "late, while being stopped"]


def test_two_synchronous_tasks_that_fail_at_once_do_not_hide_each_other() -> None:
    meeting = threading.Barrier(2)
    with weave() as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)
            raise LookupError("one")

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)
            raise ValueError("two")

    assert {type(failure) for failure in w.result.failures} == {LookupError, ValueError}
    assert w.result.cancelled == set()


def test_two_synchronous_tasks_with_options_that_fail_at_once_do_not_hide_each_other() -> None:
    meeting = threading.Barrier(2)
    with weave(timeout=60.0) as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)
            raise LookupError("one")

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)
            raise ValueError("two")

    assert {type(failure) for failure in w.result.failures} == {LookupError, ValueError}


def test_a_synchronous_task_that_has_no_thread_yet_is_not_started_after_a_failure() -> None:
    ran: list[str] = []
    with weave(max_workers=1) as w:

        @w.do
        def fails() -> None:
            raise LookupError

        @w.do
        def waits_for_the_thread() -> None:
            ran.append("ran")

    assert w.result.cancelled == {"waits_for_the_thread"}
    assert ran == []


def test_a_blocked_synchronous_task_does_not_keep_a_failed_weave() -> None:
    began, release, came_back = threading.Event(), threading.Event(), threading.Event()
    with weave() as w:

        @w.do
        def blocked() -> None:
            began.set()
            release.wait(SECONDS)
            came_back.set()

        @w.do
        async def fails() -> None:
            await asyncio.to_thread(began.wait, SECONDS)
            raise LookupError

    assert not came_back.is_set()
    assert w.result.cancelled == {"blocked"}
    release.set()
    assert came_back.wait(SECONDS)


def test_a_task_that_catches_its_cancellation_and_returns_has_a_result() -> None:
    with weave() as w:

        @w.do
        async def stubborn() -> str:
            try:
                await asyncio.sleep(SECONDS)
            except asyncio.CancelledError:
                return "result"
            return "too late"

        @w.do
        async def fails() -> None:
            raise LookupError

    assert w.result.stubborn == "result"
    assert w.result.cancelled == set()
    assert isinstance(w.result.exception, LookupError)


def test_where_no_thread_can_be_started_the_task_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("wove-task"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with weave() as w:

        @w.do
        async def first() -> None: ...

        @w.do
        def second(first: None) -> None: ...

        @w.do
        async def third() -> None:
            await asyncio.sleep(SECONDS)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        _ = w.result.second
    assert w.result.cancelled == {"third"}
