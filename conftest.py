"""What every test of the workspace shares: which event loop async tests run on, and that Ctrl-C means something."""

import signal

import pytest

# A shell starts a background job with SIGINT ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio only: Wove is built on it."""
    return "asyncio"
