"""What backends in this process write down."""

from collections.abc import Iterator

import pytest

from tests.support.adapters import Ledger
from wove.backend.loop import shutdown


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    yield Ledger()
    # Links and receivers outlive weaves; the next test gets new ones.
    shutdown()
