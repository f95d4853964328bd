import subprocess
import sys
from pathlib import Path

import pytest

from wove.testing.servers import require_program

INSTALL = "apt-get install no-such-server"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_program_on_the_path_is_found(on_path: Path) -> None:
    program = on_path / "some-server"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    assert require_program("some-server", install=INSTALL) == str(program)


def test_a_missing_program_skips_the_test_and_names_the_command(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=INSTALL):
        require_program("no-such-server", install=INSTALL)


def test_a_missing_program_is_an_error_in_ci(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match=INSTALL):
        require_program("no-such-server", install=INSTALL)


def test_a_server_that_is_started_by_hand_needs_no_tests_to_be_missed() -> None:
    by_hand = (
        f"from wove.testing.servers import require_program; require_program('no-such-server', install={INSTALL!r})"
    )
    ended = subprocess.run([sys.executable, "-c", by_hand], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"no-such-server is not installed. Install it with: {INSTALL}\n"
