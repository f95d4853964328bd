"""``python -m wove.backend_worker`` as processes of a test."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wove.backend.payload import payload_to_b64


class Workers:
    """Starts worker processes, and ends those that a test leaves."""

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "spool"
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self,
        payload: dict[str, Any] | None,
        *arguments: str,
        program: tuple[str, ...] = ("-m", "wove.backend_worker"),
        stdin: str | None = None,
        **variables: str,
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "WOVE_SPOOL_DIR": str(self.spool), **variables}
        if payload is not None:
            environment["WOVE_BACKEND_PAYLOAD"] = payload_to_b64(payload)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *program, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        if process.stdin is not None:
            process.stdin.write(stdin or "")
            process.stdin.close()
            process.stdin = None
        return process

    def run(self, payload: dict[str, Any] | None, *arguments: str, **options: Any) -> tuple[int, str]:
        """Return exit code and standard error of a worker that ends by itself."""
        return self.end(self.start(payload, *arguments, **options))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a worker's end."""
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
