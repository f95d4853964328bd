"""Proves the adapter with Wove's conformance kit, on a scheduler and two workers under nannies."""

from collections.abc import Iterator

import pytest
from dask_backend import DaskDeployment, Scheduler

from wove.testing import AdapterConformance
from wove_dask import DaskAdapter


@pytest.fixture(scope="class")
def cluster(scheduler: Scheduler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskDeployment]:
    deployment = DaskDeployment(scheduler, tmp_path_factory.mktemp("cluster"))
    yield deployment
    deployment.close()


class TestDask(AdapterConformance):
    """Wove connects a client of its own."""

    adapter_class = DaskAdapter
    subject = "dask"
    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0
    # An interpreter with all that Dask imports takes its time to end, above all on a machine that is busy.
    exit_seconds = 6.0
    # Two workers, two nannies and a scheduler compete for the processors meanwhile.
    blocked_seconds = 0.25

    @pytest.fixture
    def deployment(self, cluster: DaskDeployment) -> DaskDeployment:
        return cluster
