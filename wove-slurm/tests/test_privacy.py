"""What other users of the cluster can see of a task: neither its payload nor the token of its weave."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed
from wove.testing import Visit, tasks
from wove.testing.stage import Stage

SECONDS = 40.0
TOKEN = "nobody-else-may-see-this-token"


@pytest.fixture
def stage(deployment: SlurmDeployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    deployment.ensure_worker()
    monkeypatch.setenv("A_SECRET_OF_THE_SUBMITTER", "do not tell")
    with Stage(deployment, seconds=SECONDS) as stage:
        stage.configure(callback_token=TOKEN)
        yield stage


@pytest.fixture
def visit(stage: Stage) -> Visit:
    stage.begin(tasks.wait_at, board=stage.board.address, label="secret")
    return stage.wait_until_known(tasks.wait_at, "secret")


def commands() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def others_may_read(path: Path, top: Path) -> bool:
    folders = [folder for folder in path.parents if folder.is_relative_to(top)]
    return bool(path.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in folders)


def holds_token(path: Path) -> bool:
    return path.is_file() and TOKEN.encode() in path.read_bytes()


def test_no_command_line_and_no_environment_holds_the_token(visit: Visit) -> None:
    assert not any(TOKEN.encode() in command for command in commands())
    variables = Path(f"/proc/{visit.pid}/environ").read_bytes()
    assert TOKEN.encode() not in variables
    assert b"do not tell" not in variables
    assert b"SLURM_JOB_ID=" in variables


def test_files_that_hold_the_token_are_their_owners_alone(visit: Visit, bed: SlurmBed) -> None:
    found = [path for path in bed.folder.rglob("*") if holds_token(path)]
    assert any("spool" in path.parts for path in found), "slurmd has the script"
    assert any("state" in path.parts for path in found), "slurmctld has the script"
    assert [path for path in found if others_may_read(path, bed.folder)] == []


def test_slurm_shows_the_script_to_nobody_else(visit: Visit, bed: SlurmBed) -> None:
    (job,) = [line.split()[0] for line in bed.jobs()]
    assert TOKEN not in bed.client("scontrol", "show", "job", job).stdout
    assert TOKEN in bed.client("scontrol", "write", "batch_script", job, "-").stdout
    if os.geteuid() == 0:  # Only root can ask as somebody else.
        asked = subprocess.run(
            ["scontrol", "write", "batch_script", job, "-"],
            env={**os.environ, "SLURM_CONF": str(bed.config)},
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
        )
        assert "Invalid user id" in asked.stderr
        assert TOKEN not in asked.stdout + asked.stderr
