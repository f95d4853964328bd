"""Two watches of the API server, on the Jobs and the pods of one adapter: they resume, and list again if they must."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from wove.integrations.base import JobState
from wove_k8s.connection import Connection, Refused, Unreachable
from wove_k8s.states import Changes, JobBook, Kind

# After that many seconds a watch ends, and a new list shows whether anything was missed.
_LONGEST_WATCH = 300
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# Statuses with which a server that starts, stops or is overloaded answers.
BUSY = frozenset((429, 500, 502, 503, 504))
_GONE = 410

logger = logging.getLogger("wove")


class Watcher:
    """Tells how Jobs are doing. Lives as long as its adapter; its loop only.

    Args:
        connection: to the API server.
        namespace: where.
        selector: of labels, for the Jobs and their pods.
        book: what all of it means.
    """

    def __init__(self, connection: Connection, *, namespace: str, selector: str, book: JobBook) -> None:
        self._connection = connection
        self._selector = selector
        self._book = book
        self._paths: dict[Kind, str] = {
            "jobs": f"/apis/batch/v1/namespaces/{namespace}/jobs",
            "pods": f"/api/v1/namespaces/{namespace}/pods",
        }
        # Where each watch goes on; None: with a list.
        self._versions: dict[Kind, str | None] = {"jobs": None, "pods": None}

    async def start(self) -> None:
        """Look once, so that the watches miss nothing from now on.

        Raises:
            Refused: it is not allowed.
            Unreachable: there is no answer.
        """
        await asyncio.gather(*(self._list(kind) for kind in self._paths))

    async def changes(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield run ids and states as the cluster tells them, for ever.

        Raises:
            Refused: watching is not allowed.
        """
        queue: asyncio.Queue[Changes] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        following = [loop.create_task(self._follow(kind, queue)) for kind in self._paths]
        try:
            while True:
                for change in await self._next(queue, following):
                    yield change
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)

    async def _next(self, queue: "asyncio.Queue[Changes]", following: "list[asyncio.Task[None]]") -> Changes:
        loop = asyncio.get_running_loop()
        due = self._book.next_due()
        getting = loop.create_task(queue.get())
        try:
            timeout = None if due is None else max(due - loop.time(), 0.0)
            done, _ = await asyncio.wait([getting, *following], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        for task in done - {getting}:
            task.result()
        changes = getting.result() if getting in done else self._book.tick(now=loop.time())
        while not queue.empty():
            changes = [*changes, *queue.get_nowait()]
        return changes

    async def _follow(self, kind: Kind, queue: "asyncio.Queue[Changes]") -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if self._versions[kind] is None:
                    queue.put_nowait(await self._list(kind))
                async for changes in self._watch(kind):
                    pause = _FIRST_PAUSE
                    queue.put_nowait(changes)
                self._versions[kind] = None
                continue
            except Refused as refused:
                if refused.status == _GONE:
                    # So old that the server does not know any more what came afterwards.
                    self._versions[kind] = None
                elif refused.status not in BUSY:
                    raise
                logger.debug("Watching %s: %s", kind, refused)
            except Unreachable as error:
                logger.debug("Watching %s: %s", kind, error)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _list(self, kind: Kind) -> Changes:
        known = self._book.known(kind)
        listed = await self._connection.call("GET", self._paths[kind], query={"labelSelector": self._selector})
        self._versions[kind] = listed["metadata"]["resourceVersion"]
        items = listed.get("items") or []
        return self._book.listed(kind, items, known, now=asyncio.get_running_loop().time())

    async def _watch(self, kind: Kind) -> AsyncIterator[Changes]:
        query = {
            "watch": "1",
            "labelSelector": self._selector,
            "resourceVersion": self._versions[kind],
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(_LONGEST_WATCH // 2, _LONGEST_WATCH)),
        }
        async for event in self._connection.stream(self._paths[kind], query):
            item: dict[str, Any] = event["object"]
            if event["type"] == "ERROR":
                raise Refused(int(item.get("code") or 0), str(item.get("reason")), str(item.get("message")))
            self._versions[kind] = item["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                yield self._book.seen(kind, event["type"], item, now=asyncio.get_running_loop().time())
