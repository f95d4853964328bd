"""What the tests of the receiver's door share: a session of each mode, and a tripwire that nothing has touched."""

from collections.abc import AsyncIterator

import pytest

from tests.support.receiving import Receiving, receiving
from tests.support.tripwire import unpickled


@pytest.fixture
def untouched_tripwire() -> None:
    """Forget what earlier tests unpickled."""
    unpickled.clear()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiving]:
    """A session that takes unsigned events too."""
    async with receiving() as session:
        yield session


@pytest.fixture
async def signed() -> AsyncIterator[Receiving]:
    """A session that takes signed events only."""
    async with receiving(callback_security="signed") as session:
        yield session
