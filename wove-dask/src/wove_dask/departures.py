"""Tells which tasks a worker had when it left the cluster.

Dask itself gives them to another worker, or lets them wait for one, and says nothing to whoever submitted them.
"""

import weakref
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from distributed import Client

# https://distributed.dask.org/en/stable/logging.html#structured-logs: the scheduler notes here what concerns everybody.
_TOPIC = "all"

Listener = Callable[[str, Collection[Any]], Awaitable[object]]


class Departures:
    """Workers that leave, as one client hears of them. Used on the client's loop.

    Args:
        client: a client that is connected.
    """

    def __init__(self, client: Client) -> None:
        # The client's handlers lead here, and it has to be collected when nobody uses it any more.
        self._reference = weakref.ref(client)
        self._listeners: list[Listener] = []
        # The connection that the scheduler was asked on; a client that connects again is forgotten there.
        self._asked_on: object = None

    def listen(self, listener: Listener) -> None:
        """Call a listener with the address of each worker that leaves, and the keys of the tasks that it had."""
        if listener not in self._listeners:
            self._listeners.append(listener)
        client = self._reference()
        if client is not None and self._asked_on is not client.scheduler_comm and not self._is_occupied(client):
            self._asked_on = client.scheduler_comm
            client.subscribe_topic(_TOPIC, self._heard)

    def ignore(self, listener: Listener) -> None:
        """Take back `listen`."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        client = self._reference()
        if self._listeners or client is None or client.status != "running":
            return
        if self._asked_on is client.scheduler_comm:
            self._asked_on = None
            client.unsubscribe_topic(_TOPIC)

    def _is_occupied(self, client: Client) -> bool:
        """Tell whether the project itself listens, as only one can: then a lost task is noticed when it is repeated."""
        handlers = getattr(client, "_event_handlers", {})
        return _TOPIC in handlers and handlers[_TOPIC] != self._heard

    async def _heard(self, event: tuple[float, Any]) -> None:
        _, news = event
        if isinstance(news, dict) and news.get("action") == "remove-worker":
            keys = frozenset(news.get("processing-tasks") or ())
            for listener in list(self._listeners):
                await listener(str(news.get("worker")), keys)


_known: "weakref.WeakKeyDictionary[Client, Departures]" = weakref.WeakKeyDictionary()


def departures_of(client: Client) -> Departures:
    """Return what a client hears of workers that leave: one for all who use it."""
    if client not in _known:
        _known[client] = Departures(client)
    return _known[client]
