"""Where jobs write, and what can be read of it."""

from pathlib import Path

import pytest

from wove_slurm.logs import Logs


def test_logs_of_ones_own_are_in_a_directory_that_nobody_else_may_enter(tmp_path: Path) -> None:
    logs = Logs(f"{tmp_path}/logs/")
    logs.prepare()
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert logs.option("wove-a", is_array=False) == f"{folder}/wove-a.log"
    assert logs.option("wove-a", is_array=True) == f"{folder}/wove-a-%a.log"
    assert logs.path_of("wove-a", key="17_3", number="20") == folder / "wove-a-3.log"
    logs.close(keep=False)
    assert not (tmp_path / "logs").exists()


def test_a_directory_with_a_percent_sign_is_none_of_slurms_patterns(tmp_path: Path) -> None:
    logs = Logs(f"{tmp_path}/100%/")
    logs.prepare()
    assert "/100%%/session-" in logs.option("wove-a", is_array=False)


def test_two_adapters_share_a_directory(tmp_path: Path) -> None:
    one, other = Logs(f"{tmp_path}/logs/"), Logs(f"{tmp_path}/logs/")
    one.prepare()
    other.prepare()
    one.close(keep=False)
    assert len(list((tmp_path / "logs").iterdir())) == 1


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/logs/%x-%j.out", "/logs/wove-a-20.out"),
        ("/logs/%A_%a.out", "/logs/17_3.out"),
        ("/logs/%5A.out", "/logs/00017.out"),
        ("/logs/100%%.out", "/logs/100%.out"),
    ],
)
def test_a_pattern_is_filled_in_as_slurm_does(pattern: str, path: str) -> None:
    logs = Logs(pattern)
    assert logs.option("wove-a", is_array=True) == pattern
    assert logs.path_of("wove-a", key="17_3", number="20") == Path(path)


@pytest.mark.parametrize("pattern", ["/logs/%N.out", "/logs/%n-%j.out"])
def test_what_only_the_node_knows_cannot_be_filled_in(pattern: str) -> None:
    assert Logs(pattern).path_of("wove-a", key="17", number="17") is None


def test_there_need_be_no_log(tmp_path: Path) -> None:
    logs = Logs("none")
    logs.prepare()
    assert logs.option("wove-a", is_array=False) == "/dev/null"
    assert logs.tail(logs.path_of("wove-a", key="17", number="17")) == ""
    assert logs.tail(tmp_path / "nowhere") == ""


def test_of_a_long_log_the_last_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    told = Logs("none").tail(path).splitlines()
    assert (len(told), told[-1]) == (20, "line 9999")


def test_a_log_that_the_configuration_names_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "17.out").write_text("text")
    logs = Logs(f"{tmp_path}/%j.out")
    logs.remove(logs.path_of("wove-a", key="17", number="17"))
    assert (tmp_path / "17.out").exists()
