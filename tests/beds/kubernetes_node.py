"""Nodes of a test cluster: kubelets as processes of this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
_START_SECONDS = 120.0


class ControlPlane(Protocol):
    """What a node has to know.

    Attributes:
        folder: for the node's own folder.
        kubeconfig: of a user who may do everything.
    """

    folder: Path
    kubeconfig: Path


class Node:
    """A node that runs the pods of one namespace: a kubelet as a process.

    Args:
        cluster: where it registers.
        namespace: whose pods it runs.
        idle: it only gives signs of life. Kubernetes gives up no node where all are dead, so there has to be one.
        relist_seconds: how often it looks whether a process has ended; 0: it is told.
        places: how many pods have room at a time.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        namespace: str,
        *,
        idle: bool = False,
        relist_seconds: float = 0.0,
        places: int = 1000,
    ) -> None:
        self.folder = cluster.folder / f"node-{namespace}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output = (self.folder / "output").open("w+b")
        self._command = [
            sys.executable,
            "-m",
            "tests.beds.kubelet",
            str(cluster.kubeconfig),
            namespace,
            str(self.folder),
            f"--node=node-{namespace}",
            f"--relist-seconds={relist_seconds}",
            f"--places={places}",
            *(["--idle"] if idle else []),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._terminated = False

    @property
    def runs(self) -> bool:
        """Whether the kubelet is there."""
        return self._process is not None and self._process.poll() is None

    def ensure(self) -> None:
        """Return when the node runs pods."""
        if self._terminated and self._process is not None:
            self._process.wait(30.0)
        self._terminated = False
        if self.runs:
            return
        self._output.truncate(0)
        self._output.seek(0)
        process = self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        )
        deadline = time.monotonic() + _START_SECONDS
        while b"ready" not in self.output():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The kubelet is not ready:\n{self.output().decode(errors='replace')}")
            time.sleep(0.02)

    def output(self) -> bytes:
        """Return what the kubelet has printed."""
        return os.pread(self._output.fileno(), 1_000_000, 0)

    def terminate(self) -> None:
        """Begin an orderly shutdown."""
        if self.runs and self._process is not None:
            self._terminated = True
            self._process.terminate()

    def kill(self) -> None:
        """Kill the kubelet and the processes of its pods as a power failure would."""
        self._terminated = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for listed in (self.folder / "pids").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(listed.name), signal.SIGKILL)
            listed.unlink()

    def close(self) -> None:
        """End it."""
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                pass
        self.kill()
        self._output.close()
