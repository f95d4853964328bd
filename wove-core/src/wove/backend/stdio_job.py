"""One run in a stdio worker, from its command to its final event."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from wove.backend.execution import TaskExecution, is_coroutine_function
from wove.backend.final_events import error_event
from wove.backend.frames import deserialize_frame
from wove.backend.framing import Frame
from wove.backend.stdio_codec import unpack_run
from wove.backend.types import EventFrame
from wove.serialization import loads

_MOST_FUNCTIONS = 128
_LARGE = 1 << 16


class Functions:
    """The callables that were rebuilt last, for those of which the owner says that they may be used again.

    May be used from any thread.
    """

    def __init__(self) -> None:
        self._functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, pickled: bytes) -> bool:
        return pickled in self._functions

    def load(self, pickled: bytes, *, what: object, origin: str | None, reusable: bool) -> Callable[..., Any]:
        """Return the callable in a pickle. Raises `SerializationError` where it cannot be rebuilt."""
        if not reusable or len(pickled) > _LARGE:
            return loads(pickled, what=what, origin=origin)  # type: ignore[no-any-return]
        with self._lock:
            known = self._functions.get(pickled)
            if known is not None:
                self._functions.move_to_end(pickled)
                return known
        function: Callable[..., Any] = loads(pickled, what=what, origin=origin)
        with self._lock:
            self._functions[pickled] = function
            if len(self._functions) > _MOST_FUNCTIONS:
                self._functions.popitem(last=False)
        return function


class Job:
    """One run: `prepare` it, then `run` or `arun` it. `stop` may be called from any thread at any time.

    Args:
        command: its ``run_task`` command, as a JSON frame whose values are still pickled.
        frame: the same in Wove's own framing; the command is its head.
    """

    __slots__ = ("_execution", "_frame", "_stopped", "command", "ids", "is_coroutine", "run_id")

    def __init__(self, command: dict[str, Any], frame: Frame | None) -> None:
        self.command = command
        self.run_id: str = command["run_id"]
        self.ids = {"run_id": self.run_id, "task_id": command.get("task_id")}
        self.is_coroutine = bool(command.get("coroutine"))
        self._frame = frame
        self._execution: TaskExecution | None = None
        self._stopped = False

    @property
    def heartbeat_interval(self) -> float | None:
        """Seconds between two heartbeats, or None where nobody waits for them."""
        expected = (self.command.get("delivery") or {}).get("delivery_heartbeat_seconds")
        return expected / 3 if expected else None

    @property
    def is_prepared(self) -> bool:
        return self._execution is not None

    def loads_at_once(self, functions: Functions) -> bool:
        """Tell whether `prepare` takes no time worth mentioning: nothing is imported, and the arguments are small."""
        if self._frame is None or len(self._frame.body) > _LARGE:
            return False
        return self.command["callable_pickle"] in functions

    def prepare(self, functions: Functions) -> EventFrame | None:
        """Rebuild the callable and its arguments; return the run's final event if that fails."""
        try:
            command = self._load(functions)
            if "coroutine" not in command:
                self.is_coroutine = is_coroutine_function(command["callable"])
            self._execution = TaskExecution(command)
        except BaseException as error:  # Unpickling runs the user's own code.
            return error_event(self.ids, error, source="transport")
        if self._stopped:
            self._execution.stop()
        return None

    def run(self) -> EventFrame:
        """Execute the task in this thread."""
        return self._prepared().run()

    async def arun(self) -> EventFrame:
        """Execute the task in the running loop."""
        return await self._prepared().arun()

    def stop(self) -> None:
        """Stop the task; before `prepare`, as soon as it begins."""
        self._stopped = True
        if self._execution is not None:
            self._execution.stop()

    def _load(self, functions: Functions) -> dict[str, Any]:
        frame, self._frame = self._frame, None
        if frame is None:
            return deserialize_frame(self.command)
        reusable = bool(self.command.get("reusable"))
        origin = self.command.get("python")
        return unpack_run(
            frame,
            lambda pickled, what: functions.load(pickled, what=what, origin=origin, reusable=reusable),
        )

    def _prepared(self) -> TaskExecution:
        if self._execution is None:
            raise RuntimeError("The job has not been prepared.")
        return self._execution
