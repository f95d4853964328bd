"""Environments of the reference adapters, for the conformance kit."""

from collections.abc import Collection
from typing import Any

from wove import BackendAdapterEnvironmentExecutor
from wove.testing import Deployment, InlineAdapter, InlineBackend

_HERE = "tasks run on threads of the weave's own process"


class InlineDeployment(Deployment):
    """An inline backend of its own for each scenario."""

    cannot = dict.fromkeys(["kill_worker", "terminate_worker", "kill_process", "pause_process"], _HERE)

    def __init__(self, adapter_class: type[InlineAdapter] = InlineAdapter, **config: Any) -> None:
        self._adapter_class = adapter_class
        self._config = config
        self.backend = InlineBackend(workers=8)

    def environment(self) -> dict[str, Any]:
        executor = BackendAdapterEnvironmentExecutor("inline", adapter_class=self._adapter_class)
        return {"executor": executor, "executor_config": {"backend": self.backend, **self._config}}

    def ensure_worker(self) -> None:
        self.backend.resume()

    def stop_workers(self) -> None:
        self.backend.pause()

    def take_backend_down(self) -> None:
        self.backend.reachable = False

    def bring_backend_up(self) -> None:
        self.backend.reachable = True

    def leftovers(self) -> Collection[str]:
        return self.backend.unfinished()
