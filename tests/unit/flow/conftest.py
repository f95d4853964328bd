"""What the tests of flows share: a look at what a weave leaves behind."""

import gc
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_until, wove_threads


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its weave for long, and no coroutine is forgotten."""
    before = wove_threads()
    yield
    wait_until(lambda: wove_threads() <= before, what="the threads of the weave end")
    # What was forgotten is young: a full collection would take longer than most tests.
    gc.collect(1)
