"""One cluster for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed, running_slurm


@pytest.fixture(scope="session")
def bed() -> Iterator[SlurmBed]:
    with running_slurm() as bed:
        yield bed


@pytest.fixture(scope="class")
def deployment(bed: SlurmBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmDeployment]:
    deployment = SlurmDeployment(bed, tmp_path_factory.mktemp("slurm"))
    yield deployment
    deployment.close()
