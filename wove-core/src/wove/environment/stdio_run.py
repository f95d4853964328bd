"""A run on its way through a pool of worker processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wove.backend.final_events import cancelled_event, error_event
from wove.backend.frames import whose
from wove.environment.callable_pickles import CallablePickles
from wove.environment.worker_command import WorkerCommand, WorkerExit
from wove.errors import DeliveryOrphanedError


@dataclass(slots=True, eq=False)
class StdioRun:
    """One run of one session.

    Attributes:
        run_id: its id.
        frame: its ``run_task`` command.
        environment: the name of the environment that sent it, for messages.
        is_coroutine: it needs no thread of the worker.
        pickles: the pickles of its session's callables.
        deliver: takes its events, the last of which is final and may be the one that says that the run has started.
        given_up: nobody waits for it any more.
        sent_until: how many bytes its worker process has to read until it knows the run.
        returns: how often it has come back from a worker that had not begun it.
        requeued: it has begun in a worker that died, and begins once more.
    """

    run_id: str
    frame: dict[str, Any]
    environment: str
    is_coroutine: bool
    pickles: CallablePickles
    deliver: Callable[[dict[str, Any], bool], None]
    given_up: bool = False
    sent_until: int = 0
    returns: int = 0
    requeued: bool = False

    @property
    def ids(self) -> dict[str, Any]:
        return {"run_id": self.frame["run_id"], "task_id": self.frame.get("task_id")}

    @property
    def label(self) -> str:
        return whose(self.frame)

    @property
    def orphan_policy(self) -> str | None:
        """What the task's options say about a run that is lost or given up, where they say anything."""
        policy: str | None = (self.frame.get("delivery") or {}).get("delivery_orphan_policy")
        return policy

    def requeue(self) -> bool:
        """Tell whether the run begins anew although it had begun in a worker that died: once, if that is its policy."""
        if self.requeued or self.given_up or self.orphan_policy != "requeue":
            return False
        self.requeued = True
        return True

    def fail(self, error: BaseException, *, retryable: bool = True) -> None:
        """End the run with an error of the executor, or with its cancellation if that was asked for."""
        if self.given_up:
            self.cancelled()
        else:
            self.deliver(dict(error_event(self.ids, error, source="executor", retryable=retryable)), False)

    def cancelled(self) -> None:
        """End the run: it has been stopped, or was never started."""
        self.deliver(dict(cancelled_event(self.ids)), False)

    def lost(self, command: WorkerCommand, end: WorkerExit) -> None:
        """End the run: its worker process is gone."""
        message = (
            f"Environment {self.environment!r}: the worker process of {self.label} ({command}, pid {end.pid}) "
            f"{end}. {end.advice()}"
        )
        if end.stderr:
            message += f" Its last lines on stderr:\n{end.stderr}"
        self.fail(DeliveryOrphanedError(message, state="failed", exit_code=end.code, reason=end.stderr or str(end)))

    def shut_down(self) -> None:
        """End the run: the worker processes are being ended on purpose."""
        self.fail(
            DeliveryOrphanedError(
                f"Environment {self.environment!r}: the worker processes were ended, by wove.shutdown() or at the "
                f"interpreter's exit, while {self.label} was running there.",
                state="cancelled",
            )
        )
