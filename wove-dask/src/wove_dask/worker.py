"""What runs on Dask's workers: `execute` is the function of every task that Wove submits.

Workers need this distribution installed, and nothing else: no preload, no registered plugin. The first task of Wove on
a worker adds what lets the worker stop tasks.
"""

import asyncio
import json
import logging
import threading
import time
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from wove.backend.threads import in_daemon_thread, submit
from wove.backend.types import EventFrame
from wove.backend.worker_run import WorkerRun
from wove.errors import DeliveryError

PLUGIN = "wove"
# A nanny that has been told to end leaves its worker four seconds.
_FINISH_SECONDS, _STOP_SECONDS = 2.0, 0.7
_PAUSE = 0.02
_INSTALL_SECONDS = 10.0
_MOST_ON_THEIR_WAY = 8

_RUNNING = ("executing", "long-running")

logger = logging.getLogger("wove")


class NotRepeatedError(DeliveryError):
    """A task of Wove was begun by a worker that died, and Dask has started it again: it is not executed twice."""


def execute(payload: bytes) -> str:
    """Execute a payload and see to it that the outcome reaches the weave that waits for it.

    The outcome is delivered while the worker goes on with its next task, unless many are on their way.

    Args:
        payload: JSON of the payload that the adapter's ``submit`` got.

    Returns:
        The run's id.

    Raises:
        NotRepeatedError: another worker has begun it.
        DeliveryError: the outcome could not be delivered.
    """
    run = WorkerRun(json.loads(payload))
    worker = get_worker()
    stopper = worker.plugins.get(PLUGIN) or _install(worker)
    task = _Task(worker.get_current_task(), run)
    stopper.add(task)
    later = False
    try:
        task.outcome = _outcome_of(run)
        later = task.outcome is not None and stopper.may_deliver_later()
        if later:
            submit(lambda: stopper.deliver(task))
        elif task.outcome is not None:
            run.finish(task.outcome)
    finally:
        if not later:
            stopper.remove(task)
    return run.run_id


def _outcome_of(run: WorkerRun) -> EventFrame | None:
    """Execute a run and return its final event; None where there is nothing left to do."""
    if run.prepare():
        return run.execute()
    if run.is_taken:
        raise NotRepeatedError(
            "another worker had begun it and is gone; it is not executed a second time. Set retries on the task, or "
            "delivery_orphan_policy='requeue', if it may be"
        )
    return None


class _Task:
    """A task of Wove on this worker.

    Attributes:
        key: Dask's.
        run: executes it and delivers its outcome.
        outcome: the final event, once it has one.
    """

    __slots__ = ("key", "outcome", "run")

    def __init__(self, key: object, run: WorkerRun) -> None:
        self.key = key
        self.run = run
        self.outcome: EventFrame | None = None


class Stopper(WorkerPlugin):  # type: ignore[misc]
    """Stops tasks of Wove when the scheduler takes them back, and when their worker ends.

    Dask itself lets a running task go on: https://github.com/dask/distributed/issues/4694. One per worker, which calls
    it on its own loop; other methods are called by the threads that execute tasks.
    """

    def __init__(self) -> None:
        # Two may have one key: a task that was taken back goes on until it ends, and may be given again meanwhile.
        self._tasks: list[_Task] = []

    def add(self, task: _Task) -> None:
        """Let a task be stopped."""
        self._tasks.append(task)

    def remove(self, task: _Task) -> None:
        """End what `add` began."""
        task.run.close()
        self._tasks.remove(task)

    def may_deliver_later(self) -> bool:
        """Tell whether one more outcome may be delivered while the worker goes on."""
        return sum(each.outcome is not None for each in list(self._tasks)) <= _MOST_ON_THEIR_WAY

    def deliver(self, task: _Task) -> None:
        """Deliver the outcome of a task, however long that takes."""
        try:
            if task.outcome is not None:
                task.run.finish(task.outcome)
        except Exception as error:  # There is nobody else who could be told.
            logger.warning("%s", error)
        finally:
            self.remove(task)

    def transition(self, key: object, start: str, finish: str, **kwargs: Any) -> None:
        """Stop a task that nobody wants any more."""
        if finish == "released" and start in _RUNNING:
            for task in list(self._tasks):
                if task.key == key:
                    _stop(task.run)

    async def teardown(self, worker: Worker) -> None:
        """Let running tasks end, stop those that take too long, and tell their weaves of the others."""
        await self._wait(_FINISH_SECONDS)
        for task in list(self._tasks):
            _stop(task.run)
        await self._wait(_STOP_SECONDS)
        await asyncio.gather(*(in_daemon_thread(task.run.last_words) for task in list(self._tasks)))

    async def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._tasks and time.monotonic() < deadline:  # noqa: ASYNC110 - threads end them
            await asyncio.sleep(_PAUSE)


def _stop(run: WorkerRun) -> None:
    run.stop()
    # If the weave's process is gone, nothing here must be held up by it for minutes.
    run.give_up_soon()


_installing = threading.Lock()


def _install(worker: Worker) -> Stopper:
    """Add a stopper to this worker alone: the scheduler would give one to workers that have no Wove, and they fail."""
    with _installing:
        if PLUGIN not in worker.plugins:
            added = worker.plugin_add(plugin=Stopper(), name=PLUGIN)
            asyncio.run_coroutine_threadsafe(added, worker.loop.asyncio_loop).result(_INSTALL_SECONDS)
        stopper: Stopper = worker.plugins[PLUGIN]
        return stopper
