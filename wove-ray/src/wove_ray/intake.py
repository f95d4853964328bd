"""Submits tasks to Ray: small ones on the loop, a few at a time, and others in a thread."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from wove.backend.threads import in_daemon_thread

if TYPE_CHECKING:
    from wove_ray.runs import Runs, Submission, Submitted

# So many small tasks are submitted in one go, at some 80 microseconds each; the loop has a turn between two goes. A
# thread would take longer: each of them would have it wait for the interpreter's lock.
_FEW, _SMALL_BYTES = 4, 64 * 1024
# How long Ray Client may take to accept tasks.
_ANSWER_SECONDS = 8.0


class Intake:
    """Submits the tasks of one adapter. Lives as long as that; its loop only.

    Args:
        runs: what submits them.
        track: is told of each task as soon as it has been submitted.
        withdraw: is told of tasks that have been submitted although nobody waits for them any more.
    """

    def __init__(
        self,
        runs: "Runs",
        *,
        track: "Callable[[Submitted], None]",
        withdraw: "Callable[[Sequence[Submitted]], None]",
    ) -> None:
        self._runs = runs
        self._track = track
        self._withdraw = withdraw

    def submit_now(self, submission: "Submission", *, returns: int = 0) -> "Submitted | None":
        """Submit a task at once; None where that is more than a moment's work.

        Args:
            submission: the task.
            returns: as for `Runs.submit`.

        Raises:
            Exception: as `Runs.submit`.
        """
        if not self._is_quick([submission]):
            return None
        (run,) = self._runs.submit([submission], returns=returns)
        self._track(run)
        return run

    async def submit(self, submissions: "Sequence[Submission]", *, returns: int = 0) -> "list[Submitted | Exception]":
        """Submit tasks, and return the handle of each, or what has kept it from being submitted.

        Args:
            submissions: the tasks.
            returns: as for `Runs.submit`.

        Raises:
            Exception: as `Runs.submit`, where none of them has been submitted.
            ConnectionError: Ray does not answer.
        """
        done: list[Submitted | Exception] = []
        try:
            while len(done) < len(submissions):
                if done:
                    await asyncio.sleep(0)
                few = submissions[len(done) : len(done) + _FEW]
                if self._is_quick(few):
                    more = self._runs.submit(few, returns=returns)
                else:
                    more = await self._in_thread(submissions[len(done) :], returns)
                for run in more:
                    self._track(run)
                done += more
        except Exception as error:
            if not done:
                raise
            done += [error] * (len(submissions) - len(done))
        except asyncio.CancelledError:
            self._withdraw([run for run in done if not isinstance(run, Exception)])
            raise
        return done

    async def _in_thread(self, submissions: "Sequence[Submission]", returns: int) -> "list[Submitted]":
        runs = self._runs
        arguments = [argument for _, apart in submissions for argument in apart]
        if arguments:
            # However long it takes: that is a matter of their size.
            await in_daemon_thread(runs.store, arguments)
        submitting = asyncio.ensure_future(in_daemon_thread(partial(runs.submit, submissions, returns=returns)))
        try:
            return await asyncio.wait_for(asyncio.shield(submitting), _ANSWER_SECONDS if runs.is_client else None)
        except (TimeoutError, asyncio.CancelledError) as error:
            submitting.add_done_callback(self._withdraw_late)
            if isinstance(error, TimeoutError):
                raise ConnectionError(
                    f"Ray has not taken the task within {_ANSWER_SECONDS:g} s. Is its head running?"
                ) from None
            raise

    def _is_quick(self, submissions: "Sequence[Submission]") -> bool:
        """Tell whether submitting needs no answer of anybody and takes no time."""
        if self._runs.is_client or not self._runs.is_ready:
            return False
        size = 0
        for payload, apart in submissions:
            if apart:
                return False
            size += len(payload.get("callable_pickle", "")) + len(payload.get("args_pickle", ""))
        return size < _SMALL_BYTES

    def _withdraw_late(self, submitting: "asyncio.Future[list[Submitted]]") -> None:
        if not submitting.cancelled() and submitting.exception() is None:
            self._withdraw(submitting.result())
