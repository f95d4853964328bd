"""A cluster that watches over memory without the kernel's help: Slurm kills the job, and says why in its log."""

from collections.abc import Callable, Iterator

import pytest
from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed, running_slurm
from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.stage import Stage

SECONDS = 60.0
WATCHFUL = """\
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[SlurmBed]:
    with running_slurm(more=WATCHFUL) as bed:
        yield bed


@pytest.fixture(scope="module")
def deployment(bed: SlurmBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmDeployment]:
    deployment = SlurmDeployment(bed, tmp_path_factory.mktemp("memory"))
    yield deployment
    deployment.close()


def greedy() -> Callable[[str, str], str]:
    def hoard(board: str, label: str) -> str:
        hoarded = bytearray(400 * 2**20)
        return tasks.wait_at(board, label) + str(len(hoarded))

    return hoard


def test_a_job_that_takes_too_much_memory_is_reported(deployment: SlurmDeployment) -> None:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        stage.configure(mem="150M")
        error = stage.begin(greedy(), board=stage.board.address, label="greedy").failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.exit_code == -9
    assert "ended by SIGKILL" in str(error)
    assert "Exceeded job memory limit" in str(error)
