"""The one death that takes a minute: Slurm knows no shorter time limit, and enforces it late."""

import signal
from collections.abc import Callable, Iterator

import pytest
from slurm_backend import SlurmDeployment

from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.stage import Stage


@pytest.fixture
def stage(deployment: SlurmDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=40.0) as stage:
        yield stage


def deaf() -> Callable[[str, str], str]:
    def wait_deafly(board: str, label: str) -> str:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return tasks.wait_at(board, label)

    return wait_deafly


@pytest.mark.timeout(240)
def test_a_job_that_takes_too_long_is_reported(stage: Stage) -> None:
    stage.configure(time_limit=1)
    running = stage.begin(deaf(), board=stage.board.address, label="slow")
    error = running.failure(200.0)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "failed"
    assert "TIMEOUT" in str(error)
    assert "ask for more with 'time_limit'" in str(error)
    assert "DUE TO TIME LIMIT" in str(error), "Slurm's own words are in the log"
