"""What the scheduler does for Wove: it carries outcomes to the clients that wait for them, and remembers which tasks a
worker has begun.

Both come with Dask's own messages about tasks, so that a worker need not open a connection to a weave for either.
"""

from typing import Any

from distributed import Scheduler, SchedulerPlugin

# A scheduler keeps the plugin that it was given first, and a message that it does not know costs its sender the
# connection. So what these three say to each other changes under another number only.
PLUGIN = "wove-1"
OUTCOME, BEGUN = "wove-1-outcome", "wove-1-begun"
# Annotations of a task: the client that waits for its outcome; and, when the scheduler assigns it again, what became of
# it before.
CLIENT, BEFORE = "wove_1_client", "wove_1_before"
# What `BEFORE` may be: begun for sure; or assigned, to a worker that asks the weave before it begins.
WAS_BEGUN, WAS_ASSIGNED = "begun", "assigned"

_HELD = ("processing", "memory", "erred")


class Carrier(SchedulerPlugin):  # type: ignore[misc]
    """The scheduler's part. One per scheduler, on its loop."""

    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Scheduler | None = None
        # One entry per task of Wove that the scheduler knows.
        self._begun: set[str] = set()

    def start(self, scheduler: Scheduler) -> None:
        """Take messages of workers."""
        self._scheduler = scheduler
        scheduler.stream_handlers[OUTCOME] = self.carry
        scheduler.stream_handlers[BEGUN] = self.begin

    def carry(self, client: str, run_id: str, outcome: bytes, worker: str) -> None:
        """Pass an outcome on; nobody waits for it where its client has gone."""
        if self._scheduler is None:
            return
        comm = self._scheduler.client_comms.get(client)
        if comm is not None:
            try:
                comm.send({"op": OUTCOME, "run_id": run_id, "outcome": outcome})
            except OSError:
                pass  # It has gone a moment ago. Raised, this would end the connection of the worker, and its tasks.
        _hasten(self._scheduler.stream_comms.get(worker))

    def begin(self, key: str, worker: str) -> None:
        """Take note that a worker has begun a task."""
        if self._scheduler is not None and key in self._scheduler.tasks:
            self._begun.add(key)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Note at a task that is to be assigned again what has become of it."""
        if finish == "forgotten":
            self._begun.discard(key)
        elif start in _HELD and finish not in _HELD and self._scheduler is not None:
            task = self._scheduler.tasks.get(key)
            if task is not None and task.annotations and CLIENT in task.annotations:
                before = WAS_BEGUN if key in self._begun else WAS_ASSIGNED
                task.annotations = {**task.annotations, BEFORE: before}


def _hasten(comm: Any) -> None:
    """Let the next message be sent at once: a worker that has ended a task waits for another one.

    Dask lets some milliseconds pass between two messages, to gather what belongs to them.
    """
    if hasattr(comm, "next_deadline"):
        comm.next_deadline = None
