"""Executes one task on the worker's side and says what became of it. Every kind of worker goes through here.

A `TaskExecution` turns a ``run_task`` frame into exactly one final event, whatever the task does; that becomes bytes in
`wove.backend.final_events`, whatever the task returned.

asyncio is loaded with the first coroutine, see `wove.backend.late_asyncio`.
"""

import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from wove.backend.apart import values_apart
from wove.backend.final_events import cancelled_event, error_event
from wove.backend.frames import deserialize_frame
from wove.backend.late_asyncio import is_being_cancelled, is_cancellation, run_in_own_loop
from wove.backend.stopping import Interruption
from wove.backend.threads import in_daemon_thread
from wove.backend.types import EventFrame
from wove.errors import SerializationError, TaskStopped


class CurrentRun(NamedTuple):
    """What a task may know about the run that executes it.

    Attributes:
        run_id: unique to this attempt at the task.
        task_name: the task's name in the weave.
        attempt: 1 for the first attempt.
        deadline: unix seconds until which the weave waits, or None.
        trace: trace context of the weave, e.g. ``{"traceparent": ...}``.
    """

    run_id: str
    task_name: str
    attempt: int = 1
    deadline: float | None = None
    trace: Mapping[str, str] = MappingProxyType({})


# What nobody can await. The question itself costs more than a short task does.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})
# Base64 characters of arguments from which unpickling would hold up an event loop noticeably.
_LARGE = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Pending:
    """What a call returned is still to be awaited."""

    value: Awaitable[Any]


_current: contextvars.ContextVar[CurrentRun | None] = contextvars.ContextVar("wove_current_run", default=None)


def current_run() -> CurrentRun | None:
    """Return the run that this code is executed for, or None outside of a remote task."""
    return _current.get()


class TaskExecution:
    """One execution of one task. Use it once: `run`; or `arun`, before which `run_unless_async` may do what a thread
    can. `stop` may be called from any thread meanwhile.

    Args:
        frame: a ``run_task`` command or a payload; its callable and arguments as objects, or still pickled.
        apart: pickled arguments that have travelled apart from it, see `wove.backend.apart`; None where somebody else
            has announced them, or there are none.
    """

    def __init__(self, frame: Mapping[str, Any], *, apart: Mapping[str, bytes] | None = None) -> None:
        self._frame = frame
        self._apart = apart
        self._ids = {"run_id": frame["run_id"], "task_id": frame.get("task_id")}
        self._name = str(frame.get("task_name") or frame.get("task_id") or frame["run_id"])
        self._interruption = Interruption()
        self._lock = threading.Lock()
        self._stopped = False
        self._spared = False
        self._stop_coroutine: Callable[[], object] | None = None
        self._call: tuple[Callable[..., Any], dict[str, Any]] | None = None
        self._pending: _Pending | None = None

    def run(self) -> EventFrame:
        """Execute the task in this thread and return its final event. Nothing that the task raises gets out.

        A synchronous callable runs outside of any event loop, a coroutine in a loop of its own.
        """
        try:
            function, args = self._load()
        except BaseException as error:  # Unpickling runs the user's own code.
            return self._failed(error, source="transport")
        token = _current.set(self._run_info())
        try:
            outcome = self._called(function, args)
            if isinstance(outcome, _Pending):
                return run_in_own_loop(self._awaited(outcome.value))
            return outcome
        except BaseException as error:  # Only what arrives from outside: a signal's exception, a failing loop.
            return self._ended_by(error)
        finally:
            _current.reset(token)

    def run_unless_async(self) -> EventFrame | None:
        """Execute a synchronous callable in this thread and return its final event; None leaves the rest to `arun`."""
        try:
            function, args = self._call = self._load()
        except BaseException as error:  # Unpickling runs the user's own code.
            return self._failed(error, source="transport")
        if is_coroutine_function(function):
            return None
        token = _current.set(self._run_info())
        try:
            outcome = self._called(function, args)
        finally:
            _current.reset(token)
        if not isinstance(outcome, _Pending):
            return outcome
        self._pending = outcome
        return None

    async def arun(self) -> EventFrame:
        """Execute the task and return its final event: a coroutine in the running loop, anything else in a thread.

        Cancelling `arun` stops the task and raises `CancelledError`, unless the task catches it and returns.
        """
        import asyncio

        try:
            function, args = await self._loaded()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # Unpickling runs the user's own code.
            return self._failed(error, source="transport")
        token = _current.set(self._run_info())
        try:
            return await self._executed(function, args)
        except asyncio.CancelledError:
            if is_being_cancelled():
                self.stop()
                raise
            return self._cancelled()
        finally:
            _current.reset(token)

    def stop(self) -> None:
        """Ask the task to stop: a coroutine is cancelled, a synchronous callable interrupted (see `Interruption` for
        what cannot be). May be repeated; after the end it does nothing.
        """
        with self._lock:
            if self._spared:
                return
            self._stopped = True
            stop_coroutine = self._stop_coroutine
        if stop_coroutine is None:
            self._interruption.interrupt()
            return
        try:
            stop_coroutine()
        except RuntimeError:
            pass  # Its loop has just been closed.

    def spare(self) -> bool:
        """Let `stop` do nothing any more, because a signal interrupts the task; return False if `stop` has been first.

        For signal handlers, too.
        """
        # Without the lock, which the interrupted thread itself may hold.
        if self._stopped:
            return False
        self._spared = True
        self._interruption.spare()
        return True

    def discard(self) -> None:
        """Give up what `run_unless_async` has left to `arun`."""
        pending, self._pending = self._pending, None
        if pending is not None and inspect.iscoroutine(pending.value):
            pending.value.close()

    def _load(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        frame = self._frame
        if "callable" not in frame:
            command = {**frame, "type": "run_task"}
            if self._apart:
                with values_apart(self._apart):
                    frame = deserialize_frame(command)
            else:
                frame = deserialize_frame(command)
        function = frame["callable"]
        if not callable(function):
            raise SerializationError(f"Task {self._name!r}: the callable is a {type(function).__name__}.")
        return function, dict(frame.get("args") or {})

    async def _loaded(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        if self._call is not None:
            return self._call
        if len(self._frame.get("args_pickle") or "") > _LARGE:
            return await in_daemon_thread(self._load)
        return self._load()

    def _run_info(self) -> CurrentRun:
        return CurrentRun(
            run_id=str(self._frame["run_id"]),
            task_name=self._name,
            attempt=self._frame.get("attempt") or 1,
            deadline=self._frame.get("deadline"),
            trace=self._frame.get("trace") or {},
        )

    async def _executed(self, function: Callable[..., Any], args: dict[str, Any]) -> EventFrame:
        outcome: EventFrame | _Pending
        if self._pending is not None:
            outcome, self._pending = self._pending, None
        elif is_coroutine_function(function):
            outcome = self._begun(function, args)
        else:
            context = contextvars.copy_context()
            outcome = await in_daemon_thread(context.run, self._called, function, args)
        return await self._awaited(outcome.value) if isinstance(outcome, _Pending) else outcome

    def _called(self, function: Callable[..., Any], args: dict[str, Any]) -> "EventFrame | _Pending":
        """Call the function in this thread, where `stop` can interrupt it."""
        try:
            try:
                self._interruption.begin()
                if self._stopped:
                    return self._cancelled()
                value = function(**args)
            finally:
                self._interruption.end()
        except BaseException as error:
            return self._ended_by(error)
        if type(value) in _PLAIN or not inspect.isawaitable(value):
            return self._succeeded(value)
        return _Pending(value)

    def _begun(self, function: Callable[..., Any], args: dict[str, Any]) -> "EventFrame | _Pending":
        """Make the coroutine of a coroutine function, which runs none of its code."""
        if self._stopped:
            return self._cancelled()
        try:
            return _Pending(function(**args))
        except BaseException as error:  # The arguments do not fit.
            return self._ended_by(error)

    async def _awaited(self, awaitable: Awaitable[Any]) -> EventFrame:
        """Await what the function returned in a task of its own, which `stop` can cancel."""
        import asyncio

        loop = asyncio.get_running_loop()
        task = loop.create_task(self._event_of(awaitable))
        with self._lock:
            self._stop_coroutine = functools.partial(loop.call_soon_threadsafe, task.cancel)
            stopped = self._stopped
        if stopped:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            return self._cancelled()
        finally:
            with self._lock:
                self._stop_coroutine = None
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # It has not begun if the task was stopped at once.

    async def _event_of(self, awaitable: Awaitable[Any]) -> EventFrame:
        # Nothing but a cancellation may leave this task: SystemExit and KeyboardInterrupt would end the whole loop.
        try:
            return self._succeeded(await awaitable)
        except BaseException as error:
            if is_cancellation(error):
                raise
            return self._ended_by(error)

    def _succeeded(self, value: object) -> EventFrame:
        return {"type": "task_result", "run_id": self._ids["run_id"], "task_id": self._ids["task_id"], "result": value}

    def _cancelled(self) -> EventFrame:
        return cancelled_event(self._ids)

    def _failed(self, error: BaseException, *, source: str) -> EventFrame:
        return error_event(self._ids, error, source=source)

    def _ended_by(self, error: BaseException) -> EventFrame:
        if self._stopped or isinstance(error, TaskStopped) or is_cancellation(error):
            return self._cancelled()
        return self._failed(error, source="task")


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Tell whether calling something makes a coroutine: functions, methods, partials and callable objects."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
