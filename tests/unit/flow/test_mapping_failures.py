"""What becomes of a map when an item or another task fails."""

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.support.maps import every_way, per_item
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import SECONDS
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@every_way
def test_the_failure_of_an_item_is_that_of_the_map_with_a_note_of_the_item(
    asynchronous: bool, options: dict[str, Any]
) -> None:
    error = LookupError("mine")

    def work(number: int) -> int:
        if number == 2:
            raise error
        return number

    with weave() as w:
        w.do([1, 2], **options)(per_item(work, asynchronous=asynchronous))
    with pytest.raises(LookupError) as caught:
        _ = w.result.item
    assert caught.value is error
    assert error.__notes__ == ["Raised in task 'item', item 1, environment 'default'."]


@every_way
def test_all_failures_of_a_fan_out_are_reachable(asynchronous: bool, options: dict[str, Any]) -> None:
    meeting = threading.Barrier(2)

    def work(number: int) -> None:
        if not asynchronous:
            meeting.wait(SECONDS)
        raise LookupError(number)

    with weave() as w:
        w.do([0, 1], **options)(per_item(work, asynchronous=asynchronous))
    failures = w.result.failures
    assert {failure.args[0] for failure in failures} == {0, 1}
    assert w.result.exception is failures[0]
    notes = {failure.args[0]: failure.__notes__ for failure in failures}
    assert notes[1] == ["Raised in task 'item', item 1, environment 'default'."]


@every_way
def test_after_a_failure_no_further_items_start(asynchronous: bool, options: dict[str, Any]) -> None:
    ran: list[int] = []

    def work(number: int) -> None:
        ran.append(number)
        raise LookupError

    with weave(max_workers=1) as w:
        w.do(range(1000), **{**options, "workers": 1})(per_item(work, asynchronous=asynchronous))
    assert isinstance(w.result.exception, LookupError)
    assert ran == [0]


@in_virtual_time
async def test_the_failure_of_one_item_cancels_the_others() -> None:
    stopped: list[int] = []
    async with weave() as w:

        @w.do(range(3))
        async def item(number: int) -> None:
            try:
                await asyncio.sleep(number + 1)
            except asyncio.CancelledError:
                stopped.append(number)
                raise
            raise LookupError(number)

    assert sorted(stopped) == [1, 2]
    assert len(w.result.failures) == 1


def test_the_failure_of_another_task_stops_a_map_and_leaves_it_without_a_result() -> None:
    ran: list[int] = []
    began = threading.Event()
    with weave(max_workers=2) as w:

        @w.do(range(1000))
        def item(number: int) -> None:
            ran.append(number)
            began.set()
            time.sleep(0.001)

        @w.do
        def fails() -> None:
            began.wait(SECONDS)
            raise LookupError

    assert w.result.cancelled == {"item"}
    assert len(ran) < 500


def test_blocked_items_do_not_keep_a_failed_map() -> None:
    release = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise LookupError
        release.wait(SECONDS)

    with weave() as w:
        w.do(range(5))(per_item(work, asynchronous=False))
    assert isinstance(w.result.exception, LookupError)
    assert not release.is_set()
    release.set()
