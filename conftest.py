"""What every test of the workspace shares: which event loop async tests run on."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio only: Wove is built on it."""
    return "asyncio"
