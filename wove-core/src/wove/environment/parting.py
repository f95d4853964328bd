"""Takes large arguments out of frames for adapters that carry them apart from the payload."""

import asyncio
from collections.abc import Mapping
from typing import Any

from wove.backend.apart import Apart, Pickled
from wove.backend.threads import in_daemon_thread
from wove.environment.packing import is_small
from wove.serialization import dumps

# Smaller ones travel in the payload.
SMALLEST_BYTES = 64 * 1024
# How long an argument that nobody asks for any more is kept for the next item of the same map.
_LINGER_SECONDS = 5.0


class _Known:
    __slots__ = ("forget", "pickled", "value")

    def __init__(self, value: object, pickled: Apart | Pickled, forget: asyncio.TimerHandle) -> None:
        # Kept, so that no other object takes over its id.
        self.value = value
        self.pickled = pickled
        self.forget = forget


class Parting:
    """Parts frames from their large arguments. One that several runs of a weave share is pickled once.

    Lives as long as an executor session; background loop only.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], _Known] = {}
        self._pickling = asyncio.Lock()

    def leaves(self, frame: Mapping[str, Any]) -> bool:
        """Tell whether `part` would return a frame as it is."""
        return not _large_in(frame.get("args") or {})

    async def part(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a frame without its large arguments, and with these as a list of `Apart` under ``apart``.

        Raises:
            SerializationError: an argument cannot be pickled; the message names the task.
        """
        args: Mapping[str, Any] = frame.get("args") or {}
        large = _large_in(args)
        if not large:
            return frame
        parted = {**args, **{name: await self._pickled(frame, name) for name in large}}
        apart = [value for value in parted.values() if isinstance(value, Apart)]
        return {**frame, "args": parted, "apart": apart}

    def close(self) -> None:
        """Forget everything."""
        for known in self._known.values():
            known.forget.cancel()
        self._known.clear()

    async def _pickled(self, frame: Mapping[str, Any], name: str) -> Apart | Pickled:
        value = frame["args"][name]
        key = (str(frame.get("weave")), id(value))
        async with self._pickling:
            known = self._known.get(key)
            if known is None:
                task = frame.get("task_name") or frame.get("task_id")
                pickled = await in_daemon_thread(_pickle, value, f"the argument {name!r} of task {task!r}")
            else:
                known.forget.cancel()
                pickled = known.pickled
            forget = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._known.pop, key, None)
            self._known[key] = _Known(value, pickled, forget)
            return pickled


def _large_in(args: Mapping[str, Any]) -> list[str]:
    return [name for name, value in args.items() if not is_small(value)]


def _pickle(value: object, what: str) -> Apart | Pickled:
    data = dumps(value, what=what)
    return Apart(data) if len(data) >= SMALLEST_BYTES else Pickled(data)
