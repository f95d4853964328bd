"""Which task may start, and what ends because of what. Pure state: events in, instructions out.

Tasks are the indexes of a `Graph`. The caller starts what it is told to start, cancels what it is told to cancel, and
reports each task's end exactly once; the schedule knows neither time, nor threads, nor executors.
"""

from collections.abc import Sequence
from enum import IntEnum


class TaskState(IntEnum):
    """Where a task stands; the last three are final."""

    WAITING = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3
    CANCELLED = 4


# Python 3.11 takes thirty times as long to find a member through its class as to find a name of the module.
WAITING, RUNNING, DONE, FAILED, CANCELLED = TaskState


class Schedule:
    """Readiness of the tasks of one weave.

    Args:
        dependencies: for each task the tasks that it needs.
        dependents: for each task the tasks that need it.
    """

    __slots__ = ("_dependents", "_missing", "_running", "failures", "states", "stopping")

    def __init__(self, dependencies: Sequence[Sequence[int]], dependents: Sequence[Sequence[int]]) -> None:
        self._dependents = dependents
        self._missing = [len(needed) for needed in dependencies]
        self._running = 0
        self.states = [WAITING] * len(self._missing)
        self.failures: list[int] = []
        self.stopping = False

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will start."""
        return self._running == 0

    def begin(self) -> list[int]:
        """Return the tasks that need nothing; they are to be started."""
        return self._start([task for task, missing in enumerate(self._missing) if missing == 0])

    def finish(self, task: int) -> list[int]:
        """Note a task's result; return the tasks that are to be started because of it."""
        self._end(task, DONE)
        ready: list[int] = []
        missing = self._missing
        for dependent in self._dependents[task]:
            missing[dependent] -= 1
            if missing[dependent] == 0:
                ready.append(dependent)
        return [] if self.stopping else self._start(ready)

    def fail(self, task: int) -> list[int]:
        """Note a task's failure; return the running tasks that are to be cancelled because of it."""
        self._end(task, FAILED)
        self.failures.append(task)
        return self.stop()

    def cancelled(self, task: int) -> list[int]:
        """Note that a running task ended without a result; return what is to be cancelled because of it."""
        self._end(task, CANCELLED)
        return self.stop()

    def stop(self) -> list[int]:
        """Start nothing more; return the running tasks, to be cancelled. Later calls return nothing."""
        if self.stopping:
            return []
        self.stopping = True
        running: list[int] = []
        for task, state in enumerate(self.states):
            if state is RUNNING:
                running.append(task)
            elif state is WAITING:
                self.states[task] = CANCELLED
        return running

    def _start(self, ready: list[int]) -> list[int]:
        for task in ready:
            self.states[task] = RUNNING
        self._running += len(ready)
        return ready

    def _end(self, task: int, state: TaskState) -> None:
        if self.states[task] is not RUNNING:
            raise ValueError(f"Task {task} is {self.states[task].name}, not running; it cannot become {state.name}.")
        self.states[task] = state
        self._running -= 1
