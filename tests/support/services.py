"""Worker services as real processes on loopback ports."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.deployments import AnnouncedWorker
from wove.testing.servers import free_port

_ROOT = Path(__file__).parents[2]


class Service:
    """``python -m wove.services`` on a port that stays the same when it is started again.

    Args:
        transport: ``http``, ``websocket`` or ``grpc``.
        options: further arguments of the command.
        env: variables to add to those of this process.
    """

    def __init__(self, transport: str, *options: str, env: Mapping[str, str] | None = None, workers: int = 2) -> None:
        self.transport = transport
        self.port = free_port()
        command = [sys.executable, "-m", "wove.services", transport, "--port", str(self.port)]
        self.worker = AnnouncedWorker(
            [*command, "--workers", str(workers), *options],
            announcement="Wove worker service on ",
            # The functions that tests send are found by their modules' names.
            env={"PYTHONPATH": str(_ROOT), **(env or {})},
        )

    def start(self) -> None:
        """Return when the service takes tasks; start it unless it runs."""
        self.worker.ensure()

    def config(self, **more: Any) -> dict[str, Any]:
        """Return the ``executor_config`` of clients."""
        if self.transport == "grpc":
            return {"target": f"127.0.0.1:{self.port}", **more}
        scheme = {"http": "http", "websocket": "ws"}[self.transport]
        return {"url": f"{scheme}://127.0.0.1:{self.port}/wove/tasks", **more}

    def processes(self) -> list[int]:
        """Return the process ids of its worker processes."""
        return [
            int(child)
            for task in Path(f"/proc/{self.worker.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
