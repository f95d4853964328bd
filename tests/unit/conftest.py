"""What unit tests share: a configuration of their own, and the files that it reads."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wove.runtime import RuntimeConfig, runtime


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeConfig]:
    """The process-wide configuration, as empty as at the start of a process whose working directory is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WOVE_")]:
        monkeypatch.delenv(name)
    runtime.reset()
    yield runtime
    runtime.reset()


def write(path: str | Path, text: str) -> Path:
    """Write a file, and make the folders on the way to it."""
    found = Path(path)
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text(text, encoding="utf-8")
    return found
