"""The conformance kit against the built-in executors that need no server: local and stdio."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from wove.testing import Deployment, ExecutorConformance


class TestLocal(ExecutorConformance):
    """Tasks in the weave's own process: most of what can go wrong elsewhere cannot go wrong here."""

    capabilities = frozenset({"max_argument_20mb", "cancel_running_async"})
    limitations = dict.fromkeys(
        [
            "cancel_queued",
            "deduplicate",
            "detect_dead_process",
            "detect_dead_worker",
            "detect_lost_job",
            "graceful_stop",
            "queues_without_worker",
            "separate_process",
        ],
        "tasks run in the weave's own process",
    ) | {
        "cancel_running_sync": "Python cannot stop a thread; the weave goes on without it",
        "crosses_boundary": "tasks and their values stay in the weave's own process",
    }

    @pytest.fixture
    def deployment(self) -> Deployment:
        return LocalDeployment()


class LocalDeployment(Deployment):
    """No backend at all."""

    cannot = dict.fromkeys(["take_backend_down", "bring_backend_up"], "there is nothing that could be down")

    def environment(self) -> dict[str, Any]:
        return {"executor": "local"}


class TestStdio(ExecutorConformance):
    """Tasks in worker processes of this machine."""

    capabilities = frozenset(
        "cancel_running_async cancel_running_sync crosses_boundary detect_dead_process detect_dead_worker "
        "graceful_stop max_argument_20mb separate_process".split()
    )
    limitations: ClassVar[Mapping[str, str]] = {
        "cancel_queued": "no queue outlives the weave",
        "deduplicate": "no queue outlives the weave; Wove itself runs equal keys in flight once",
        "detect_lost_job": "there are no jobs beside the process, and a dead process is noticed",
        "queues_without_worker": "the worker is a child process, started on demand",
    }

    @pytest.fixture
    def deployment(self) -> Deployment:
        return StdioDeployment()


class StdioDeployment(Deployment):
    """Worker processes that Wove itself starts."""

    cannot: ClassVar[Mapping[str, str]] = {
        "take_backend_down": "the worker is a child process, started on demand",
        "bring_backend_up": "the worker is a child process, started on demand",
    }

    def environment(self) -> dict[str, Any]:
        return {"executor": "stdio"}

    def kill_worker(self) -> None:
        for pid in _stdio_workers():
            os.kill(pid, signal.SIGKILL)

    def terminate_worker(self) -> None:
        for pid in _stdio_workers():
            os.kill(pid, signal.SIGTERM)


def _stdio_workers() -> list[int]:
    """The worker processes that are children of this one."""
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if b"wove.stdio_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
