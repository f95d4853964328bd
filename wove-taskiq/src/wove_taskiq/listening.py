"""Brokers of workers that go on listening, and so go on with their tasks, when Redis is silent or away.

A broker of taskiq-redis lets through what Redis's client raises, and Taskiq then ends the process with all tasks that
it executes and all results that it still has to deliver. Since version 8 of the client, five seconds without a message
are enough for that.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from taskiq import AckableMessage
from taskiq_redis import ListQueueBroker, RedisStreamBroker
from taskiq_redis.redis_broker import BaseRedisBroker

T = TypeVar("T")

_PAUSE = 1.0
_TICK = 0.5

logger = logging.getLogger("wove")


class LastingListBroker(ListQueueBroker):
    """A list broker that waits for messages for as long as it takes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _wait_without_limit(self)

    def listen(self) -> AsyncGenerator[bytes, None]:
        """Return the messages, also those after a break of the connection."""
        return _lasting(super().listen)


class DirectListBroker(LastingListBroker):
    """A list broker of a worker that takes no message before it has room for its task, and sends none once more.

    What it takes is gone from the list, so it comes once; and what is in the list has not been given up.
    """


class LastingStreamBroker(RedisStreamBroker):
    """A stream broker that waits for messages for as long as it takes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _wait_without_limit(self)

    def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Return the messages, also those after a break of the connection."""
        return _lasting(super().listen)


def _wait_without_limit(broker: BaseRedisBroker) -> None:
    # Whatever the URL says: a message that Redis gives away while the client stops waiting for it is lost.
    broker.connection_pool.connection_kwargs["socket_timeout"] = None


async def _lasting(listen: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    while True:
        try:
            with _ticking():
                async with aclosing(listen()) as messages:
                    async for message in messages:
                        yield message
        except (RedisConnectionError, RedisTimeoutError) as error:
            logger.warning("Listening to Redis failed, and goes on in %g s: %s", _PAUSE, error)
        await asyncio.sleep(_PAUSE)


@contextmanager
def _ticking() -> Iterator[None]:
    """Let the loop turn inside of a ``with`` block, also when nothing happens.

    Taskiq's handler of SIGTERM does not wake the loop, and one that waits for nothing but messages would never hear of
    it: https://github.com/taskiq-python/taskiq/issues/646
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal timer
        timer = loop.call_later(_TICK, tick)

    tick()
    try:
        yield
    finally:
        timer.cancel()
