"""Proves the adapter with Wove's conformance kit. This is all that an author has to write."""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from acme_queue import Client, create
from acme_queue.wove_adapter import AcmeQueueAdapter

from wove.testing import AdapterConformance, Deployment, WorkerProcess


class AcmeDeployment(Deployment):
    """A queue in a directory of its own, and a worker process."""

    def __init__(self, directory: Path) -> None:
        self._home = directory / "home"
        self._away = directory / "away"
        self.url = f"acme://{self._home}/queue.db"
        create(self.url)
        self._client = Client(self.url)
        self._worker = WorkerProcess(
            [sys.executable, "-m", "acme_queue.worker", self.url], ready=lambda: bool(self._client.workers())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    def environment(self) -> dict[str, Any]:
        return {"executor": "acme_queue", "executor_config": {"url": self.url}}

    def ensure_worker(self) -> None:
        self._worker.ensure()

    def stop_workers(self) -> None:
        self._worker.kill()
        for worker in self._client.workers():
            self._client.say_goodbye(worker)

    def kill_worker(self) -> None:
        self._worker.kill()

    def terminate_worker(self) -> None:
        self._worker.terminate()

    def take_backend_down(self) -> None:
        self._worker.kill()
        self._home.rename(self._away)

    def bring_backend_up(self) -> None:
        self._away.rename(self._home)

    def leftovers(self) -> Collection[str]:
        return self._client.all_ids()


class TestAcmeQueue(AdapterConformance):
    """Every scenario of the kit."""

    adapter_class = AcmeQueueAdapter
    subject = "acme_queue"

    @pytest.fixture
    def deployment(self, tmp_path: Path) -> Iterator[AcmeDeployment]:
        with AcmeDeployment(tmp_path) as deployment:
            yield deployment
