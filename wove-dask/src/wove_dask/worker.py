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

from wove.backend.carried_run import CarriedRun
from wove.backend.threads import in_daemon_thread, submit
from wove.backend.types import EventFrame
from wove.errors import DeliveryError
from wove_dask.carrier import WAS_BEGUN
from wove_dask.messages import Beginning, Messages, beginning_of

PLUGIN = "wove"
# A nanny that has been told to end leaves its worker four seconds.
_FINISH_SECONDS, _STOP_SECONDS = 2.0, 0.7
_PAUSE = 0.02
_INSTALL_SECONDS = 10.0
_MOST_ON_THEIR_WAY = 8
# What is larger is posted: it would keep the scheduler from its work.
_LARGEST_CARRIED = 16 * 1024

_NOT_REPEATED = (
    "another worker had begun it and is gone; it is not executed a second time. Set retries on the task, or "
    "delivery_orphan_policy='requeue', if it may be"
)
_RUNNING = ("executing", "long-running")

logger = logging.getLogger("wove")


class NotRepeatedError(DeliveryError):
    """A task of Wove was begun by a worker that died, and Dask has started it again: it is not executed twice."""


def execute(payload: bytes) -> str:
    """Execute a payload and see to it that the outcome reaches the weave that waits for it.

    A small one is carried there by the scheduler, if that does so. Another one is posted, while the worker goes on with
    its next task unless many are on their way.

    Args:
        payload: JSON of the payload that the adapter's ``submit`` got.

    Returns:
        The run's id.

    Raises:
        NotRepeatedError: another worker has begun it.
        DeliveryError: the outcome could not be delivered.
    """
    worker = get_worker()
    key = worker.get_current_task()
    stopper = worker.plugins.get(PLUGIN) or _install(worker)
    announced = stopper.beginning(key)
    told = announced is not None and announced.before is None and announced.is_told()
    # Nobody has announced the first task on a worker.
    beginning = announced or beginning_of(worker, key)
    # One that has not been announced asks the weave whether it may begin.
    run = CarriedRun(json.loads(payload), first_delivery=told)
    task = _Task(key, run)
    stopper.add(task)
    left = False
    try:
        if beginning is not None and beginning.before == WAS_BEGUN:
            _refuse(run)
        else:
            task.outcome = _outcome_of(run)
        if task.outcome is not None:
            left = (beginning is not None and stopper.carry(task, beginning.client)) or stopper.deliver_later(task)
            if not left:
                run.finish(task.outcome)
    finally:
        if not left:
            stopper.remove(task)
    return run.run_id


def _outcome_of(run: CarriedRun) -> EventFrame | None:
    """Execute a run and return its final event; None where there is nothing left to do."""
    if run.prepare():
        return run.execute()
    if run.is_taken:
        raise NotRepeatedError(_NOT_REPEATED)
    return None


def _refuse(run: CarriedRun) -> None:
    if not run.hand_over_kept():
        raise NotRepeatedError(_NOT_REPEATED)


class _Task:
    """A task of Wove on this worker.

    Attributes:
        key: Dask's.
        run: executes it and delivers its outcome.
        outcome: the final event, once it has one.
        carried: the outcome where it is to be sent to a client when Dask has taken note of the task's end.
        client: that client's id.
    """

    __slots__ = ("carried", "client", "key", "outcome", "run")

    def __init__(self, key: object, run: CarriedRun) -> None:
        self.key = key
        self.run = run
        self.outcome: EventFrame | None = None
        self.carried: bytes | None = None
        self.client = ""


class Stopper(WorkerPlugin):  # type: ignore[misc]
    """Stops tasks of Wove when the scheduler takes them back, and when their worker ends; tells the scheduler
    when they begin and end.

    Dask itself lets a running task go on: https://github.com/dask/distributed/issues/4694. One per worker, which calls
    it on its own loop; other methods are called by the threads that execute tasks.
    """

    def __init__(self) -> None:
        # Two may have one key: a task that was taken back goes on until it ends, and may be given again meanwhile.
        self._tasks: list[_Task] = []
        self._messages: Messages | None = None
        self._beginnings: dict[object, Beginning] = {}

    def setup(self, worker: Worker) -> None:
        """Take note of the worker."""
        self._messages = Messages(worker)

    def beginning(self, key: object) -> Beginning | None:
        """Return what the scheduler has been told of a task that begins, or None."""
        return self._beginnings.pop(key, None)

    def add(self, task: _Task) -> None:
        """Let a task be stopped."""
        self._tasks.append(task)

    def remove(self, task: _Task) -> None:
        """End what `add` began."""
        task.run.close()
        self._tasks.remove(task)

    def carry(self, task: _Task, client: str) -> bool:
        """Let the outcome of a task be carried to a client when the task has ended; False if it has to be posted."""
        if task.outcome is None:
            return False
        task.client = client
        task.carried = task.run.carried(task.outcome, most=_LARGEST_CARRIED)
        return task.carried is not None

    def deliver_later(self, task: _Task) -> bool:
        """Post the outcome of a task while the worker goes on; False if too many are on their way."""
        if sum(each.outcome is not None for each in list(self._tasks)) > _MOST_ON_THEIR_WAY:
            return False
        submit(lambda: self._deliver(task))
        return True

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Tell the scheduler of a task that begins, and of one that has ended; stop one that nobody wants any more."""
        if self._messages is None:
            return
        for task in list(self._tasks):
            if task.key == key:
                if task.carried is not None:
                    self._send(task, task.carried, self._messages)
                elif finish == "released" and start in _RUNNING:
                    _stop(task.run)
        if finish == "executing":
            beginning = self._messages.begin(key)
            if beginning is not None:
                self._beginnings[key] = beginning
        elif start == "executing":
            self._beginnings.pop(key, None)

    def _deliver(self, task: _Task) -> None:
        """Deliver the outcome of a task, however long that takes."""
        try:
            if task.outcome is not None:
                task.run.finish(task.outcome)
        except Exception as error:  # There is nobody else who could be told.
            logger.warning("%s", error)
        finally:
            self.remove(task)

    def _send(self, task: _Task, outcome: bytes, messages: Messages) -> None:
        task.carried = None
        messages.end(task.client, task.run.run_id, outcome, lambda: submit(lambda: self._post(task.run)))
        self.remove(task)

    def _post(self, run: CarriedRun) -> None:
        run.abort()
        run.close()

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


def _stop(run: CarriedRun) -> None:
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
