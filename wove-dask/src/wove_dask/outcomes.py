"""The outcomes that the scheduler carries to a client."""

import asyncio
import logging
import weakref
from collections.abc import Callable

from distributed import Client

from wove_dask.carrier import OUTCOME, PLUGIN, Carrier

_OFFER_SECONDS = 5.0

# Takes a run's id and its outcome, and tells whether the run is one of its own.
Taker = Callable[[str, bytes], bool]

logger = logging.getLogger("wove")


class Outcomes:
    """The outcomes that reach one client. Used on the client's loop.

    Args:
        client: a client that is connected.
    """

    def __init__(self, client: Client) -> None:
        # The client's handlers lead here, and it has to be collected when nobody uses it any more.
        self._reference = weakref.ref(client)
        self._takers: list[Taker] = []
        # The connection whose scheduler has been offered the plugin, and whether it has taken it.
        self._offered_on: object = None
        self._taken = False

    async def listen(self, taker: Taker) -> bool:
        """Let outcomes be taken; return whether this scheduler carries them."""
        if taker not in self._takers:
            self._takers.append(taker)
        client = self._reference()
        if client is not None and self._offered_on is not client.scheduler_comm:
            comm = client.scheduler_comm
            self._taken = await self._offer(client)
            self._offered_on = comm
        return self._taken

    def ignore(self, taker: Taker) -> None:
        """Take back `listen`."""
        if taker in self._takers:
            self._takers.remove(taker)

    async def _offer(self, client: Client) -> bool:
        # As Dask's own extensions do: https://github.com/dask/distributed/blob/main/distributed/client.py
        handlers = getattr(client, "_stream_handlers", None)
        if handlers is None:
            return False
        handlers[OUTCOME] = self._heard
        try:
            async with asyncio.timeout(_OFFER_SECONDS):
                await client.register_plugin(Carrier(), name=PLUGIN)
        except Exception as error:  # It may take none, or have another version of this package.
            logger.debug("The Dask scheduler carries no outcomes, workers post them: %r", error)
            return False
        return True

    def _heard(self, run_id: str, outcome: bytes) -> None:
        for taker in self._takers:
            if taker(run_id, outcome):
                return


_known: "weakref.WeakKeyDictionary[Client, Outcomes]" = weakref.WeakKeyDictionary()


def outcomes_of(client: Client) -> Outcomes:
    """Return the outcomes that reach a client: one object for all who use it."""
    if client not in _known:
        _known[client] = Outcomes(client)
    return _known[client]
