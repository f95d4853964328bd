"""Options of merges: those of tasks, under those of the weave."""

import asyncio
import threading
from itertools import count
from typing import Any

import pytest

from tests.support.merges import both_places, in_task
from tests.support.tasks import double, seven
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import SECONDS
from wove import merge, weave
from wove.errors import OptionError, TaskTimeoutError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@both_places
def test_it_takes_the_options_of_tasks(asynchronous: bool) -> None:
    attempts: list[int] = []

    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise LookupError
        return len(attempts)

    assert in_task(lambda: merge(flaky, retries=2), asynchronous=asynchronous) == 3


@both_places
def test_a_merge_may_time_out(asynchronous: bool) -> None:
    release = threading.Event()
    failure = in_task(
        lambda: merge(lambda: release.wait(SECONDS), timeout=0.02), asynchronous=asynchronous, error_mode="return"
    )
    release.set()
    assert isinstance(failure, TaskTimeoutError)
    assert failure.__notes__[0].startswith("Raised in task 'merge(<lambda>)'")
    assert len(failure.__notes__) == 2


def test_workers_limit_a_merged_map() -> None:
    running = most = 0

    async def item(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    in_task(lambda: merge(item, range(20), workers=3))
    assert most == 3


@in_virtual_time
async def test_limit_per_minute_spaces_a_merged_map() -> None:
    starts: list[float] = []

    async def item(number: int) -> None:
        starts.append(asyncio.get_running_loop().time())

    async with weave() as w:

        @w.do
        async def task() -> None:
            await merge(item, range(3), limit_per_minute=60)

    assert w.result.exception is None
    assert starts == pytest.approx([0, 1, 2], abs=1e-3)


def test_max_pending_of_the_weave_holds_for_merged_maps() -> None:
    with pytest.raises(RuntimeError, match=r"Task 'merge\(double\)' is mapped over more than max_pending=5 items"):
        in_task(lambda: merge(double, count()), max_pending=5)


def test_options_of_the_weave_hold_for_merges_too() -> None:
    attempts: list[int] = []

    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise LookupError
        return len(attempts)

    assert in_task(lambda: merge(flaky), retries=1) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrys": 1}, r"merge\(seven\): no option named 'retrys'. Did you mean 'retries'\?"),
        ({"timeout": -1}, r"merge\(seven\): timeout must be"),
        ({"workers": 2}, r"merge\(seven\): workers has a meaning on mapped tasks only"),
        ({"limit_per_minute": 2}, r"merge\(seven\): limit_per_minute has a meaning on mapped tasks only"),
    ],
)
def test_a_bad_option_is_a_value_error_that_names_the_merge(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        in_task(lambda: merge(seven, **options))
    assert isinstance(caught.value, OptionError)


def test_an_unknown_environment_is_a_name_error() -> None:
    with pytest.raises(NameError, match=r"Task 'merge\(seven\)': no environment named 'nowhere'"):
        in_task(lambda: merge(seven, environment="nowhere"))
