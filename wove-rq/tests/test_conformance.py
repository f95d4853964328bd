"""Proves the adapter with Wove's conformance kit, with RQ's own command and with Wove's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rq_backend import RedisServer, RQDeployment, own_command

from wove.testing import AdapterConformance
from wove_rq import RQAdapter


class OnRQ(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be."""

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0


@pytest.fixture(scope="class")
def plain(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RQDeployment]:
    deployment = RQDeployment(redis_server, tmp_path_factory.mktemp("plain"))
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def preloading(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RQDeployment]:
    directory: Path = tmp_path_factory.mktemp("preloading")
    command = own_command(redis_server.url(), "--serializer", "json", "reports")
    config = {"queue_name": "reports", "serializer": "json"}
    deployment = RQDeployment(redis_server, directory, command=command, config=config)
    yield deployment
    deployment.close()


class TestPlainWorker(OnRQ):
    """The worker is started by RQ's own command, without anything of ours, and jobs are pickled as RQ does."""

    adapter_class = RQAdapter
    subject = "rq (rq worker)"
    # Each job begins with the import of Wove: two hundred take a minute on a machine that does other things, too.
    step_seconds = 50.0

    @pytest.fixture
    def deployment(self, plain: RQDeployment) -> RQDeployment:
        return plain


class TestPreloadingWorker(OnRQ):
    """The worker is started by Wove's own line, on a queue of another name, and jobs are JSON."""

    adapter_class = RQAdapter
    subject = "rq (wove_rq.worker)"

    @pytest.fixture
    def deployment(self, preloading: RQDeployment) -> RQDeployment:
        return preloading
