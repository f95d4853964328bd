"""What tests of the kit share: the suites in them are no backend's, and in no table."""

import pytest

from wove.testing.outcomes import VARIABLE


@pytest.fixture(autouse=True)
def _unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
