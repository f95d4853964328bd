"""What a host remembers of runs, also when a process dies in the middle of it, and when it cannot remember."""

import logging
import os
import stat
from pathlib import Path

import pytest

from wove.backend.events import Event
from wove.backend.spool import Spool, spool_name

NAME = spool_name("http://web/wove/events/t", "run-1")
EVENT = Event("worker-1", 17, b'{"type": "task_result"}\nwith a second line')


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> Spool:
    return Spool(directory)


def test_an_outcome_is_kept_for_another_process(spool: Spool, directory: Path) -> None:
    spool.save(NAME, EVENT)
    assert Spool(directory).load(NAME) == EVENT


def test_a_removed_outcome_is_gone_and_may_be_removed_again(spool: Spool, directory: Path) -> None:
    spool.save(NAME, EVENT)
    spool.remove(NAME)
    spool.remove(NAME)
    assert spool.load(NAME) is None
    assert list(directory.iterdir()) == []


def test_directory_and_files_are_this_user_s_alone(spool: Spool, directory: Path) -> None:
    spool.save(NAME, EVENT)
    spool.mark_finished(NAME)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_another_run_or_another_weave_has_another_name() -> None:
    names = {spool_name(url, run) for url in ("http://a", "http://b") for run in ("run-1", "run-2", "../../etc/passwd")}
    assert len(names) == 6
    assert all(name.isalnum() for name in names)


@pytest.mark.parametrize("left", [0, 1, 20, 60, 100])
def test_an_outcome_that_a_crash_cut_off_does_not_count(spool: Spool, directory: Path, left: int) -> None:
    spool.save(NAME, EVENT)
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes()[:left])
    assert spool.load(NAME) is None
    spool.save(NAME, EVENT)
    assert spool.load(NAME) == EVENT


def test_a_large_outcome_is_kept_whole(spool: Spool) -> None:
    event = Event("worker-1", 1, b"x" * 20_000_000)
    spool.save(NAME, event)
    assert spool.load(NAME) == event


def test_finished_runs_are_remembered_by_the_whole_host(spool: Spool, directory: Path) -> None:
    assert not spool.has_finished(NAME)
    spool.mark_finished(NAME)
    assert Spool(directory).has_finished(NAME)
    assert not spool.has_finished(spool_name("http://web", "another"))


def test_the_memory_of_finished_runs_is_bounded(spool: Spool, directory: Path) -> None:
    spool.mark_finished(NAME)
    (marks,) = directory.iterdir()
    for _ in range(3):
        marks.write_bytes(bytes(1 << 20))
        spool.mark_finished("one more")
    assert sum(path.stat().st_size for path in directory.iterdir()) < 3 << 20
    assert spool.has_finished("one more")


def test_a_mark_is_not_found_across_two_others(spool: Spool, directory: Path) -> None:
    spool.mark_finished(NAME)
    (marks,) = directory.iterdir()
    mark = marks.read_bytes()
    marks.write_bytes(b"x" * 8 + mark + b"x" * 8)
    assert not spool.has_finished(NAME)
    marks.write_bytes(b"x" * 8 + mark + b"x" * 8 + mark)
    assert spool.has_finished(NAME)


def test_outcomes_of_yesterday_are_removed(spool: Spool, directory: Path) -> None:
    spool.save(NAME, EVENT)
    (path,) = directory.iterdir()
    old = path.stat().st_mtime - 25 * 3600
    os.utime(path, (old, old))
    fresh = Spool(directory)
    fresh.save("other", EVENT)
    assert fresh.load(NAME) is None
    assert fresh.load("other") == EVENT


def _unusable(directory: Path, how: str) -> None:
    if how == "a file is in its place":
        directory.write_text("")
    elif how == "others may enter it":
        directory.mkdir()
        directory.chmod(0o755)
    else:
        elsewhere = directory.parent / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        directory.symlink_to(elsewhere)


@pytest.mark.parametrize("how", ["a file is in its place", "others may enter it", "it is a link"])
def test_without_a_private_directory_the_worker_goes_on_and_says_so_once(
    spool: Spool, directory: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    _unusable(directory, how)
    with caplog.at_level(logging.WARNING, logger="wove"):
        spool.save(NAME, EVENT)
        spool.mark_finished(NAME)
        assert not spool.has_finished(NAME)
        assert spool.load(NAME) is None
    assert len(caplog.records) == 1
    assert "WOVE_SPOOL_DIR" in caplog.text
    assert not directory.is_dir() or list(directory.iterdir()) == []
