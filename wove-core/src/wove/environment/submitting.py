"""Calls an adapter's `submit`, `submit_many` where several payloads are ready at the same time, or `submit_now`, if it
has these.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wove.errors import DeliveryError
from wove.integrations.base import BackendAdapter

# While one bulk submission is on its way, the next one gathers payloads for this long.
_GATHER_SECONDS = 0.001

Submission = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Pending:
    submission: Submission
    accepted: "asyncio.Future[Any]"


class Submitter:
    """Submits payloads to one adapter. Lives as long as the adapter; background loop only."""

    def __init__(self, adapter: BackendAdapter) -> None:
        self._adapter = adapter
        self._bulk = type(adapter).submit_many is not BackendAdapter.submit_many
        # Not bounded itself: one entry per run in flight, for a moment.
        self._pending: list[_Pending] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._at_once = _submits_at_once(type(adapter))

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Submit one payload without waiting, and return the adapter's handle of it; raises what the adapter raises.

        None: it is to be submitted with `submit`, because the adapter says so, or because it does not come alone. Many
        at once would hold up the loop.
        """
        if not self._at_once or self._batches:
            return None
        self._at_once = False
        asyncio.get_running_loop().call_soon(self._end_turn)
        return self._adapter.submit_now(payload, frame)

    def _end_turn(self) -> None:
        self._at_once = True

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Submit one payload and return the adapter's handle of it; raises what the adapter raises."""
        if not self._bulk:
            return await self._adapter.submit(payload, frame)
        accepted = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending((payload, frame), accepted))
        if len(self._pending) == 1:
            self._begin_batch()
        return await accepted

    async def close(self) -> None:
        """Stop what is on its way."""
        for batch in self._batches:
            batch.cancel()
        if self._batches:
            await asyncio.wait(list(self._batches), timeout=1.0)

    def _begin_batch(self) -> None:
        pause = _GATHER_SECONDS if self._batches else 0.0
        batch = asyncio.get_running_loop().create_task(self._submit_batch(pause))
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)

    async def _submit_batch(self, pause: float) -> None:
        if pause:
            await asyncio.sleep(pause)
        pending, self._pending = self._pending, []
        await self._submit_all([each for each in pending if not each.accepted.done()])

    async def _submit_all(self, wanted: list[_Pending]) -> None:
        try:
            if len(wanted) == 1:
                results: Sequence[Any] = [await self._adapter.submit(*wanted[0].submission)]
            elif wanted:
                results = await self._adapter.submit_many([each.submission for each in wanted])
            else:
                return
            if len(results) != len(wanted):
                raise DeliveryError(
                    f"{type(self._adapter).__name__}.submit_many() returned {len(results)} results for "
                    f"{len(wanted)} submissions; it must return one for each."
                )
        except asyncio.CancelledError:
            for each in wanted:
                each.accepted.cancel()
            raise
        except Exception as error:  # An adapter may raise anything.
            results = [error] * len(wanted)
        for each, result in zip(wanted, results, strict=True):
            if each.accepted.done():
                continue
            if isinstance(result, Exception):
                each.accepted.set_exception(result)
            else:
                each.accepted.set_result(result)


def _submits_at_once(adapter: type[BackendAdapter]) -> bool:
    """Tell whether a class has a `submit_now` that does what its `submit` does."""
    if adapter.submit_now is BackendAdapter.submit_now:
        return False
    # Not where a subclass inherits it: that may have a `submit` of its own.
    at_once = _definer(adapter, "submit_now")
    return all(issubclass(at_once, _definer(adapter, name)) for name in ("submit", "submit_many"))


def _definer(adapter: type[BackendAdapter], name: str) -> type:
    return next(base for base in adapter.__mro__ if name in vars(base))
