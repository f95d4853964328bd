"""The conformance kit against the network executors, with Wove's own worker services as real processes."""

import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from tests.support.services import Service
from wove.testing import Deployment, ExecutorConformance


class ServiceDeployment(Deployment):
    """One worker service."""

    def __init__(self, transport: str) -> None:
        self.service = Service(transport, "--grace", "1")

    def environment(self) -> dict[str, Any]:
        return {"executor": self.service.transport, "executor_config": self.service.config()}

    def ensure_worker(self) -> None:
        self.service.start()

    def stop_workers(self) -> None:
        self.kill_worker()

    def kill_worker(self) -> None:
        processes = self.service.processes()
        self.service.worker.kill()
        for pid in processes:
            os.kill(pid, signal.SIGKILL)

    def terminate_worker(self) -> None:
        self.service.worker.terminate()

    def take_backend_down(self) -> None:
        self.kill_worker()

    def bring_backend_up(self) -> None:
        self.ensure_worker()


@pytest.fixture(scope="module")
def deployments() -> Iterator[dict[str, ServiceDeployment]]:
    """The service of each transport: it serves every scenario."""
    running: dict[str, ServiceDeployment] = {}
    yield running
    for deployment in running.values():
        deployment.service.worker.close()


class ServiceConformance(ExecutorConformance):
    """What holds for each transport."""

    transport = ""
    capabilities = frozenset(
        "cancel_running_async cancel_running_sync crosses_boundary detect_dead_process detect_dead_worker "
        "graceful_stop max_argument_20mb separate_process".split()
    )
    limitations: ClassVar[Mapping[str, str]] = {
        "cancel_queued": "what waits in a service does not outlive it",
        "deduplicate": "a service knows runs, not keys; Wove itself runs equal keys in flight once",
        "detect_lost_job": "a service knows its runs as long as it lives, and its death is noticed",
        "queues_without_worker": "nothing can be sent to a service that is not there",
    }

    @pytest.fixture
    def deployment(self, deployments: dict[str, ServiceDeployment]) -> Deployment:
        if self.transport not in deployments:
            deployments[self.transport] = ServiceDeployment(self.transport)
        return deployments[self.transport]


class TestHttp(ServiceConformance):
    """Tasks in a worker service, over HTTP."""

    transport = "http"


class TestWebSocket(ServiceConformance):
    """Tasks in a worker service, over WebSocket."""

    transport = "websocket"


class TestGrpc(ServiceConformance):
    """Tasks in a worker service, over gRPC."""

    transport = "grpc"
