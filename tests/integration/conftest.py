"""What integration tests share: an end of everything that a test has started."""

from collections.abc import Iterator

import pytest

import wove


@pytest.fixture
def shut_down() -> Iterator[None]:
    """Shut Wove down when the test is over: workers, connections and threads that would be kept for the next weave."""
    yield
    wove.shutdown()
