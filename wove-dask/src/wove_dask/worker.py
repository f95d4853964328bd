"""What runs on Dask's workers: `execute` is the function of every task that Wove submits.

Workers need this distribution installed, and nothing else: no preload, no registered plugin. The first task of Wove on
a worker adds what lets the worker stop tasks.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from wove.backend.threads import in_daemon_thread
from wove.backend.worker_run import WorkerRun
from wove.errors import DeliveryError

PLUGIN = "wove"
# A nanny that has been told to end leaves its worker four seconds.
_FINISH_SECONDS, _STOP_SECONDS = 2.0, 0.7
_PAUSE = 0.02
_INSTALL_SECONDS = 10.0

_RUNNING = ("executing", "long-running")


class NotRepeatedError(DeliveryError):
    """A task of Wove was begun by a worker that died, and Dask has started it again: it is not executed twice."""


def execute(payload: bytes) -> str:
    """Execute a payload and deliver the outcome to the weave that waits for it.

    Args:
        payload: JSON of the payload that the adapter's ``submit`` got.

    Returns:
        The run's id; the outcome goes to the weave's callback receiver.

    Raises:
        NotRepeatedError: another worker has begun it.
        DeliveryError: the outcome could not be delivered.
    """
    run = WorkerRun(json.loads(payload))
    try:
        with _stoppable(run):
            if run.prepare():
                run.finish(run.execute())
            elif run.is_taken:
                raise NotRepeatedError(
                    "another worker had begun it and is gone; it is not executed a second time. Set retries on the "
                    "task, or delivery_orphan_policy='requeue', if it may be"
                )
    finally:
        run.close()
    return run.run_id


class Stopper(WorkerPlugin):  # type: ignore[misc]
    """Stops tasks of Wove when the scheduler takes them back, and when their worker ends.

    Dask itself lets a running task go on: https://github.com/dask/distributed/issues/4694. One per worker, which calls
    it on its own loop; `add` and `remove` are called by the threads that execute tasks.
    """

    def __init__(self) -> None:
        # Two entries under one key: a task that was taken back goes on until it ends, and may be given again.
        self._runs: list[tuple[object, WorkerRun]] = []

    def add(self, key: object, run: WorkerRun) -> None:
        """Let a run be stopped."""
        self._runs.append((key, run))

    def remove(self, key: object, run: WorkerRun) -> None:
        """Take back `add`."""
        self._runs.remove((key, run))

    def transition(self, key: object, start: str, finish: str, **kwargs: Any) -> None:
        """Stop a task that nobody wants any more."""
        if finish == "released" and start in _RUNNING:
            for its_key, run in list(self._runs):
                if its_key == key:
                    run.stop()
                    # If the weave's process is gone, its place here must not be held for minutes.
                    run.give_up_soon()

    async def teardown(self, worker: Worker) -> None:
        """Let running tasks end, stop those that take too long, and tell their weaves of the others."""
        await self._wait(_FINISH_SECONDS)
        for _, run in list(self._runs):
            run.stop()
            run.give_up_soon()
        await self._wait(_STOP_SECONDS)
        await asyncio.gather(*(in_daemon_thread(run.last_words) for _, run in list(self._runs)))

    async def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._runs and time.monotonic() < deadline:  # noqa: ASYNC110 - threads end them
            await asyncio.sleep(_PAUSE)


_installing = threading.Lock()


@contextmanager
def _stoppable(run: WorkerRun) -> Iterator[None]:
    worker = get_worker()
    stopper = worker.plugins.get(PLUGIN) or _install(worker)
    key = worker.get_current_task()
    stopper.add(key, run)
    try:
        yield
    finally:
        stopper.remove(key, run)


def _install(worker: Worker) -> Stopper:
    """Add a stopper to this worker alone: the scheduler would give one to workers that have no Wove, and they fail."""
    with _installing:
        if PLUGIN not in worker.plugins:
            added = worker.plugin_add(plugin=Stopper(), name=PLUGIN)
            asyncio.run_coroutine_threadsafe(added, worker.loop.asyncio_loop).result(_INSTALL_SECONDS)
        stopper: Stopper = worker.plugins[PLUGIN]
        return stopper
