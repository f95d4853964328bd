"""Packs ``run_task`` frames into payloads, without holding up the loop for large values."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wove.backend.apart import Apart, Pickled
from wove.backend.payload import build_backend_payload, split_payload
from wove.backend.signing import sign_payload
from wove.backend.threads import in_daemon_thread
from wove.backend.types import Payload

# What takes longer to look at or to pickle than handing it to a thread does.
_SMALL_BYTES = 64 * 1024
_FEW_OBJECTS = 1000
_THREADS = 2
_CALLABLES_KEPT = 32
# Keys and signatures are hexadecimal SHA-256.
_PLACEHOLDER = "0" * 64

_NUMBERS = frozenset({bool, int, float, complex, type(None)})
_SCALARS = (bool, int, float, complex, type(None), Apart, Pickled)


@dataclass(frozen=True, slots=True)
class Packing:
    """What the payloads of one executor session have in common.

    Attributes:
        adapter: the adapter's name.
        callback_url: the URL that workers post events to.
        results: ``"pickle"`` or ``"json"``.
        security: ``callback_security`` where it is ``"env:VAR"``, else None.
        secret: what payloads are signed with where they are.
        lists_apart: whether payloads list the arguments that travel apart from them, because workers fetch those from
            the receiver.
    """

    adapter: str
    callback_url: str = field(repr=False)
    results: Literal["pickle", "json"]
    security: str | None = None
    secret: bytes | None = field(default=None, repr=False)
    lists_apart: bool = False


class Packer:
    """Builds payloads for one executor session. A callable that is mapped over many items is pickled once.

    Background loop only.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._pickled: OrderedDict[int, tuple[object, str]] = OrderedDict()
        # More at once would take their memory several times over and, because of the GIL, end no sooner.
        self._threads = asyncio.Semaphore(_THREADS)

    async def pack(self, frame: Mapping[str, Any], *, lease: float, limit: int | None) -> tuple[Payload, bytes | None]:
        """Return the payload of a frame and, where it exceeds the limit, the part of it that stays here.

        The payload still lacks its ``callback_key`` unless it is signed.

        Args:
            frame: a ``run_task`` frame.
            lease: seconds within which its worker shall give signs of life.
            limit: bytes of JSON that the backend carries, or None.

        Raises:
            SerializationError: the callable or an argument cannot be pickled; the message names the task.
            PayloadTooLargeError: even the part that must travel is too large.
        """
        packed = self.pack_now(frame, lease=lease, limit=limit)
        if packed is not None:
            return packed
        async with self._threads:
            whole, sent, kept = await in_daemon_thread(self._packed, self._with_known(frame), lease, limit)
        self._remember(frame, whole)
        return sent, kept

    def pack_now(
        self, frame: Mapping[str, Any], *, lease: float, limit: int | None
    ) -> tuple[Payload, bytes | None] | None:
        """Do what `pack` does at once; None where that would hold up the loop."""
        known = self._with_known(frame)
        if not is_small(frame.get("args")) or (known is frame and not _is_small_callable(frame.get("callable"))):
            return None
        whole, sent, kept = self._packed(known, lease, limit)
        self._remember(frame, whole)
        return sent, kept

    def _with_known(self, frame: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a frame with the pickle of its callable, if that is known."""
        known = self._pickled.get(id(frame.get("callable")))
        return frame if known is None else {**frame, "callable_pickle": known[1]}

    def _packed(
        self, frame: Mapping[str, Any], lease: float, limit: int | None
    ) -> tuple[Payload, Payload, bytes | None]:
        packing = self._packing
        whole = build_backend_payload(frame, callback_url=packing.callback_url, adapter=packing.adapter)
        whole["lease"] = lease
        whole["results"] = packing.results
        if packing.lists_apart and frame.get("apart"):
            whole["apart"] = [{"digest": each.key, "size": len(each.data)} for each in frame["apart"]]
        # What is filled in later counts for the size already.
        if packing.security is None:
            whole["callback_key"] = _PLACEHOLDER
        else:
            whole["callback_security"] = packing.security
            whole["signature"] = _PLACEHOLDER
        sent, kept = split_payload(whole, limit)
        if packing.secret is not None:
            sent["signature"] = sign_payload(sent, packing.secret)
        return whole, sent, kept

    def _remember(self, frame: Mapping[str, Any], whole: Payload) -> None:
        function = frame.get("callable")
        if frame.get("item") is None or id(function) in self._pickled:
            return
        # The object is kept too, so that no other one takes over its id.
        self._pickled[id(function)] = function, whole["callable_pickle"]
        if len(self._pickled) > _CALLABLES_KEPT:
            self._pickled.popitem(last=False)


def is_small(value: object) -> bool:
    """Tell whether a value is plain and certainly quick to pickle; False says nothing."""
    if type(value) in _NUMBERS:
        return True
    budget = _SMALL_BYTES
    for count, part in enumerate(_parts_of(value)):
        if isinstance(part, str | bytes | bytearray):
            budget -= len(part)
        elif not isinstance(part, _SCALARS):
            return False
        if budget < 0 or count > _FEW_OBJECTS:
            return False
    return True


def _parts_of(value: object) -> Iterator[object]:
    """Yield the leaves of plain containers, and anything else as it is; endless for one that contains itself."""
    stack = [value]
    while stack:
        part = stack.pop()
        if not isinstance(part, dict | list | tuple | set | frozenset) or len(part) > _FEW_OBJECTS:
            yield part
        else:
            # Counts the container itself.
            yield None
            stack.extend(part)
            if isinstance(part, dict):
                stack.extend(part.values())


def _is_small_callable(function: Any) -> bool:
    """Tell whether a function brings nothing large along: it is pickled by reference, or captures small values only."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    if "<locals>" not in function.__qualname__:
        # By value, a function of the main program brings the globals that it uses.
        return bool(function.__module__ != "__main__")
    try:
        captured = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # A cell that is still empty.
        return False
    return is_small([captured, list(function.__defaults__ or ()), dict(function.__kwdefaults__ or {})])
