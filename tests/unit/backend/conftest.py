"""What the tests of the backend share: a receiver of each mode, an untouched tripwire, both ways to execute."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.receiving import Receiving, receiving
from tests.support.tripwire import unpickled
from wove.backend.execution import TaskExecution
from wove.backend.types import EventFrame

Execute = Callable[[TaskExecution], EventFrame]


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


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Execute:
    """Execute a task to its final event, once with each entry point."""
    if request.param == "run":
        return lambda execution: execution.run()
    return lambda execution: asyncio.run(execution.arun())
