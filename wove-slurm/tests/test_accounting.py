"""A cluster with an accounting database, which remembers what its controller has forgotten."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed, running_slurm
from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.stage import Stage, poll_until
from wove_slurm.commands import Commands
from wove_slurm.jobs import Jobs
from wove_slurm.logs import Logs
from wove_slurm.settings import read_settings

SECONDS = 60.0
TOKEN = "nobody-else-may-see-this-token"


@pytest.fixture(scope="module")
def bed() -> Iterator[SlurmBed]:
    with running_slurm(accounting=True) as bed:
        yield bed


@pytest.fixture(scope="module")
def deployment(bed: SlurmBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmDeployment]:
    deployment = SlurmDeployment(bed, tmp_path_factory.mktemp("accounting"))
    yield deployment
    deployment.close()


@pytest.fixture
def jobs(deployment: SlurmDeployment) -> Jobs:
    settings = read_settings(deployment.environment()["executor_config"])
    jobs = Jobs(settings, Commands(settings), Logs("none"))
    jobs.connect()
    return jobs


def test_the_database_knows_how_jobs_have_ended(bed: SlurmBed, jobs: Jobs) -> None:
    assert jobs.has_accounting
    script = '#!/bin/sh\n[ "$SLURM_ARRAY_TASK_ID" = 0 ] && exit 5\nkill -9 $$\n'
    number = bed.client("sbatch", "--parsable", "--array=0-1", "--output=/dev/null", stdin=script).stdout.strip()
    keys = [f"{number}_0", f"{number}_1"]
    # The database is told late.
    poll_until(
        lambda: all(row.is_over for row in jobs.ended_rows(keys).values()) and len(jobs.ended_rows(keys)) == 2,
        seconds=SECONDS,
        what="the database knows that the jobs have ended",
    )
    found = jobs.ended_rows(keys)
    assert [(found[key].phase, found[key].exit_code) for key in keys] == [("failed", 5), ("failed", -9)]


def test_a_job_that_its_controller_has_forgotten_is_reported(deployment: SlurmDeployment, bed: SlurmBed) -> None:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="forgotten")
        stage.wait_until_known(tasks.wait_at, "forgotten")
        bed.lose_jobs()
        bed.kill_jobs()
        assert isinstance(running.failure(SECONDS), DeliveryOrphanedError)


def test_the_database_shows_scripts_to_nobody_else(deployment: SlurmDeployment, bed: SlurmBed) -> None:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        stage.configure(callback_token=TOKEN)
        assert stage.call(tasks.add, left=1, right=2) == 3
    (job, *_) = [line.split()[0] for line in reversed(bed.jobs("all"))]
    asked = ["sacct", "--allusers", "--starttime=now-1hour", f"--jobs={job}", "--batch-script"]
    own = ["sacct", "--allusers", f"--jobs={job}", "--format=JobID"]
    poll_until(
        lambda: TOKEN in bed.client(*asked, check=False).stdout, seconds=SECONDS, what="the database has the script"
    )
    assert job in bed.client(*own).stdout
    if os.geteuid() == 0:  # Only root can ask as somebody else.
        answer = subprocess.run(
            asked,
            env={**os.environ, "SLURM_CONF": str(bed.config)},
            capture_output=True,
            text=True,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
        )
        assert TOKEN not in answer.stdout + answer.stderr
