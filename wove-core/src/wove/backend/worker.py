"""The entry points of workers that execute payloads, for synchronous and for asynchronous backends."""

import contextvars
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wove.backend.termination import Termination
from wove.backend.threads import in_daemon_thread
from wove.backend.worker_run import WorkerRun


def run_backend_payload(
    payload: Mapping[str, Any],
    *,
    once_seconds: float | None = None,
    first_delivery: bool = False,
    delivered_once: bool = False,
    returns: int = 0,
) -> bytes | None:
    """Execute a payload in this thread and deliver the outcome to the weave that waits for it.

    The worker entry point for synchronous workers (`wove.integrations.worker.run` is the same function). Whatever the
    task does, returns or raises reaches the weave as an event. A synchronous callable runs outside of any event loop,
    in this thread; a coroutine in a loop of its own.

    When the weave does not want the task any more, a coroutine is cancelled and a synchronous callable interrupted with
    `TaskStopped`: at once in the main thread, in another one as soon as Python code runs in it. Code that holds the
    interpreter or catches `BaseException` cannot be stopped. In the main thread, SIGTERM and SIGINT are reported before
    the process's own handlers, or the default, end it.

    Args:
        payload: what the adapter's ``submit`` got, unchanged.
        once_seconds: for backends that cannot recognize equal jobs. Of runs with the same
            ``delivery_idempotency_key``, one at a time is executed on this host; the others wait, and for so many
            seconds are given its result instead of being executed. A failed one is executed again.
        first_delivery: the backend shows that it has never delivered this job before, and that the job had not been
            given up when the worker took it. The task begins without asking the weave, which hears of it when it has
            run for a moment. It asks all the same where payloads are signed, and with
            ``delivery_orphan_policy="fail"``, which leaves jobs in the queue.
        delivered_once: as `first_delivery`, for a job that the backend will not deliver again, whatever becomes of this
            worker. So nothing is kept for that but an outcome that cannot be delivered. SIGINT means that the job is
            taken back: either it interrupts the task or the weave does, never both.
        returns: for backends that carry a job's result back to the adapter, and that deliver it once. An outcome of up
            to so many bytes is returned instead of being posted: the job has to return it, and the adapter gives it
            back in `wove.integrations.JobState`. What else there is to say is posted, such as that a task has begun
            which runs for longer, or that it was stopped.

    Returns:
        The outcome, where the adapter is to get it as the job's result; None where it has been posted. It is not the
        task's value: that is in there, encoded and signed.

    Raises:
        DeliveryError: the outcome could not be delivered (for ten minutes, or the weave refuses this worker). It is
            kept on this host; when the backend delivers the job again, it is handed over without executing the task.
        SignatureError: the payload must be signed and is not, or by somebody else. It is not executed.
        ConfigurationError: the secret that the payload is signed with is not known here.
        ValueError: the payload lacks a field, or was made by a later version of Wove.
    """
    return execute_run(
        WorkerRun(
            payload,
            once_seconds=once_seconds,
            first_delivery=first_delivery,
            delivered_once=delivered_once,
            returns=returns,
        )
    )


def execute_run(run: WorkerRun) -> bytes | None:
    """Do everything about a run in this thread, as `run_backend_payload` says."""
    termination = Termination(run.last_words, run.interrupted)
    with termination:
        try:
            _run(run, termination)
            return run.outcome
        except BaseException as error:
            if error is termination.raised:
                run.abort()
            raise
        finally:
            run.close()


def _run(run: WorkerRun, termination: Termination) -> None:
    if not run.prepare():
        return
    event = run.execute()
    ended_by = termination.raised
    if ended_by is None or event["type"] == "task_result":
        run.finish(event)
    if ended_by is not None:
        # The task may have caught it, or it became the task's own error.
        raise ended_by
    if termination.is_put_off:
        run.abort()


async def run_backend_payload_async(
    payload: Mapping[str, Any],
    *,
    once_seconds: float | None = None,
    first_delivery: bool = False,
    delivered_once: bool = False,
    returns: int = 0,
) -> bytes | None:
    """Execute a payload from a running event loop and deliver the outcome to the weave that waits for it.

    The worker entry point for asynchronous workers (`wove.integrations.worker.arun` is the same function); see
    `run_backend_payload`. A coroutine runs in this loop. Anything else runs in a thread of its own, which can be
    stopped only while it executes Python code: a call that blocks in C goes on to its end.

    Cancelling it, as backends do with jobs that they abort or time out, stops the task, tells the weave and raises
    `CancelledError`.

    Args:
        payload: what the adapter's ``submit`` got, unchanged.
        once_seconds: as for `run_backend_payload`.
        first_delivery: as for `run_backend_payload`.
        delivered_once: as for `run_backend_payload`.
        returns: as for `run_backend_payload`.

    Returns:
        As `run_backend_payload`.

    Raises:
        Exception: as `run_backend_payload`.
    """
    return await execute_run_async(
        WorkerRun(
            payload,
            once_seconds=once_seconds,
            first_delivery=first_delivery,
            delivered_once=delivered_once,
            returns=returns,
        )
    )


async def execute_run_async(run: WorkerRun, carry: Callable[[bytes], Awaitable[object]] | None = None) -> bytes | None:
    """Do everything about a run from a running event loop, as `run_backend_payload_async` says.

    Args:
        run: the run.
        carry: is given the outcome if there is one to be carried back. When it is cancelled, that outcome is posted,
            too: it counts once.
    """
    import asyncio  # See `wove.backend.late_asyncio`.

    context = contextvars.copy_context()
    try:
        if await in_daemon_thread(context.run, run.carry_out):
            event = await run.aexecute()
            await in_daemon_thread(run.finish, event)
        outcome = run.outcome
        if outcome is not None and carry is not None:
            await carry(outcome)
        return outcome
    except asyncio.CancelledError:
        run.stop()
        run.give_up_soon()
        await asyncio.shield(in_daemon_thread(run.abort))
        raise
    finally:
        run.close()
