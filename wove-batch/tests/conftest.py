"""One server for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from batch_backend import BatchDeployment, BatchServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchServer]:
    server = BatchServer(tmp_path_factory.mktemp("batch"))
    yield server
    server.close()


@pytest.fixture
def deployment(server: BatchServer) -> Iterator[BatchDeployment]:
    deployment = BatchDeployment(server)
    yield deployment
    deployment.close()
