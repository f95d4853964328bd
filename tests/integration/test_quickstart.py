"""The quickstart example, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROSE = (
    "a heavy machine compares files with other files and finds alike ones among the many words that every file has got "
)


def quickstart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(4):
        (folder / f"note{number}.txt").write_text(PROSE * (number + 1) + f"note number {'abcd'[number] * 5}\n")
    return folder


def test_it_prints_a_report_and_what_ran_where(notes: Path) -> None:
    ran = quickstart(notes)

    assert ran.returncode == 0, ran.stderr
    assert "4 files" in ran.stdout
    assert "note3.txt" in ran.stdout
    assert "embedded: " in ran.stdout


def test_the_default_is_the_standard_library() -> None:
    ran = quickstart("--limit", "20")

    assert ran.returncode == 0, ran.stderr
    assert "20 files, " in ran.stdout
    assert os.path.dirname(os.__file__) in ran.stdout


def test_the_heavy_step_runs_in_another_process(notes: Path) -> None:
    here = quickstart(notes)
    there = quickstart(notes, "--environment", "stdio")

    assert there.returncode == 0, there.stderr
    assert there.stdout.split("task ")[0] == here.stdout.split("task ")[0]
    places = {line.split("process ")[1].strip() for line in there.stdout.splitlines() if "process " in line}
    assert len(places) == 2


def test_an_unreadable_file_is_named_and_does_not_lose_the_rest(notes: Path) -> None:
    (notes / "broken.txt").write_bytes(b"\xff\xfe\x00")

    ran = quickstart(notes)

    assert ran.returncode == 1
    assert "4 files" in ran.stdout
    assert "left out broken.txt: 'utf-8' codec can't decode" in ran.stderr


def test_what_is_no_regular_file_is_named_and_not_waited_for(notes: Path) -> None:
    os.mkfifo(notes / "pipe.txt")
    (notes / "folder.txt").mkdir()
    (notes / "dangling.txt").symlink_to(notes / "nowhere")

    ran = quickstart(notes)

    assert ran.returncode == 1
    assert "4 files" in ran.stdout
    assert "left out pipe.txt: it is not a regular file" in ran.stderr
    assert "left out dangling.txt: [Errno 2] No such file" in ran.stderr
    assert "folder.txt" not in ran.stderr


def test_it_counts_lines_and_says_when_it_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("one\ntwo")
    (tmp_path / "c.txt").write_text("")

    assert "3 files, 4 lines" in quickstart(tmp_path, "--limit", "3").stdout
    assert "there are more" not in quickstart(tmp_path, "--limit", "3").stdout
    assert "These are the first 2 files; there are more." in quickstart(tmp_path, "--limit", "2").stdout


def test_a_name_that_no_terminal_can_show_is_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "two\nlines.txt").write_text("text")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")

    ran = quickstart(tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert "two\\nlines.txt" in ran.stdout
    assert "\\udcff.txt" in ran.stdout


def test_a_wrong_setting_is_a_clear_error(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_TIMEOUT", "soon")

    ran = quickstart(notes)

    assert ran.returncode == 2
    assert "environment variable WOVE_TIMEOUT: timeout must be" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    ran = quickstart(tmp_path / "nowhere")

    assert ran.returncode == 2
    assert "nowhere is not a directory" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_directory_without_a_fitting_file_is_a_clear_error(notes: Path) -> None:
    ran = quickstart(notes, "--suffix", ".tex")

    assert ran.returncode == 2
    assert "no file in" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_environment_that_cannot_be_reached_is_a_clear_error(notes: Path) -> None:
    ran = quickstart(notes, "--environment", "http")

    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "127.0.0.1:8765" in ran.stderr
