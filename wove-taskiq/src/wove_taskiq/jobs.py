"""Everything that the adapter asks of the broker, on one event loop."""

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from taskiq import AsyncBroker, BrokerMessage
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from wove.errors import DeliveryError
from wove_taskiq.brokers import RETRY_PAUSE, address, client_without_retries, find_target
from wove_taskiq.settings import AGAIN_LABEL, FIRST_LABEL, Settings

# So many messages go to Redis in one conversation.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a message is.

    Attributes:
        queue: the key of the list or stream.
        item: the message itself in a list, its id in a stream; None for other brokers, which cannot remove it.
        earlier: the message as it was sent before, where it may have arrived in the list although that failed.
    """

    queue: str
    item: bytes | None
    earlier: bytes | None = None


class Jobs:
    """The messages of one broker.

    Args:
        settings: which broker, task and labels.

    Raises:
        ConfigurationError: an import path leads to no broker or task, or a URL is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        target = find_target(settings)
        self._broker = target.broker
        self._task_name = target.task_name
        self._labels = target.labels
        # Subclasses that send in a way of their own keep it.
        kick = type(self._broker).kick
        self._is_list = kick is ListQueueBroker.kick
        self._is_stream = kick is RedisStreamBroker.kick
        self._started = False
        self._client: Redis | None = None
        self._adding: Redis | None = None
        self._sent: dict[str, set[bytes]] = {}
        self._outliving: set[bytes] = set()

    @property
    def has_sent(self) -> bool:
        """Whether there are entries in streams that `sweep` has to look after."""
        return bool(self._sent)

    async def connect(self) -> None:
        """Start the broker. A stream has a group of consumers from now on, so that nothing gets lost in it.

        Raises:
            ConnectionError: it cannot be reached; names its address without credentials.
        """
        async with self._reachable():
            await self._broker.startup()
            self._started = True
            if self._is_list or self._is_stream:
                await self._redis().ping()

    async def send(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Entry | DeliveryError]:
        """Send messages with ids and payloads, in one go where the broker is a list or a stream.

        Raises:
            ConnectionError: the broker cannot be reached. None, some or all of the messages have arrived.
        """
        sent: list[Entry | DeliveryError] = []
        async with self._reachable():
            for first in range(0, len(jobs), _AT_ONCE):
                sent += await self._send(jobs[first : first + _AT_ONCE])
        return sent

    async def _send(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Entry | DeliveryError]:
        messages, refusals = await self._messages(jobs, first=True)
        earlier: dict[str, BrokerMessage] = {}
        if not (self._is_list or self._is_stream):
            for message in messages.values():
                await self._broker.kick(message)
            answers: list[Any] = [None] * len(messages)
        else:
            try:
                answers = await self._add(list(messages.values()))
            except (RedisConnectionError, RedisTimeoutError):
                await asyncio.sleep(RETRY_PAUSE)
                # Some may have arrived: no worker may take these for the first ones.
                earlier = messages if self._is_list else {}
                messages, _ = await self._messages(jobs, first=False)
                answers = await self._add(list(messages.values()))
        entries: dict[str, Entry] = {}
        for (task_id, message), answer in zip(messages.items(), answers, strict=True):
            item = message.message if self._is_list else cast("bytes | None", answer)
            before = earlier[task_id].message if task_id in earlier else None
            entry = entries[task_id] = Entry(self._queue_of(message), item, before)
            if self._is_stream and entry.item is not None:
                self._sent.setdefault(entry.queue, set()).add(entry.item)
        return [refusals.get(task_id) or entries[task_id] for task_id, _ in jobs]

    async def _messages(
        self, jobs: Sequence[tuple[str, Mapping[str, Any]]], *, first: bool
    ) -> tuple[dict[str, BrokerMessage], dict[str, DeliveryError]]:
        """Return what Taskiq, with the middlewares of the project, makes of payloads."""
        labels = dict(self._labels)
        if self._is_list:
            labels[FIRST_LABEL if first else AGAIN_LABEL] = True
        collected: dict[str, BrokerMessage] = {}
        refusals: dict[str, DeliveryError] = {}
        for task_id, payload in jobs:
            made: list[BrokerMessage] = []
            kicker: AsyncKicker[Any, Any] = AsyncKicker(self._task_name, self._into(made), dict(labels))
            try:
                await kicker.with_task_id(task_id).kiq(payload)
                collected[task_id] = made[0]
            except Exception as error:
                refusals[task_id] = DeliveryError(f"Taskiq does not take the task: {error!r}")
        return collected, refusals

    def _into(self, made: list[BrokerMessage]) -> AsyncBroker:
        async def collect(message: BrokerMessage) -> None:
            made.append(message)

        collecting = copy.copy(self._broker)
        collecting.kick = collect  # type: ignore[method-assign]
        return collecting

    async def _add(self, messages: Sequence[BrokerMessage]) -> list[Any]:
        async with self._sender().pipeline(transaction=False) as pipeline:
            for message in messages:
                if self._is_list:
                    pipeline.lpush(self._queue_of(message), message.message)
                else:
                    limits = {"maxlen": self._stream.maxlen, "approximate": self._stream.approximate}
                    pipeline.xadd(self._queue_of(message), {b"data": message.message}, **limits)
            return list(await pipeline.execute())

    async def remove(self, entries: Iterable[Entry]) -> None:
        """Remove messages that no worker has taken yet. Of others only what a stream keeps is removed.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        async with self._reachable(), self._redis().pipeline(transaction=False) as pipeline:
            for entry in entries:
                if entry.item is None:
                    continue
                if self._is_list:
                    pipeline.lrem(entry.queue, 1, entry.item)
                    if entry.earlier is not None:
                        pipeline.lrem(entry.queue, 1, entry.earlier)
                else:
                    pipeline.xdel(entry.queue, entry.item)
                    self._forget(entry.queue, {entry.item})
            if len(pipeline):
                await pipeline.execute()

    async def sweep(self) -> None:
        """Remove from the streams what the workers have acknowledged: Redis keeps it otherwise.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        async with self._reachable():
            for queue, items in list(self._sent.items()):
                done = await self._acknowledged(queue, set(items))
                if done:
                    await self._redis().xdel(queue, *done)
                    self._forget(queue, done)

    async def _acknowledged(self, queue: str, items: set[bytes]) -> set[bytes]:
        """Return the entries that all groups of consumers are done with."""
        redis = self._redis()
        low, high = min(items, key=_order), max(items, key=_order)
        done = items
        for group in await redis.xinfo_groups(queue):
            last = _order(group["last-delivered-id"])
            pending: set[bytes] = set()
            if group["pending"]:
                rows = await redis.xpending_range(queue, group["name"], low, high, group["pending"])
                pending = {row["message_id"] for row in rows}
            done = {item for item in done - pending if _order(item) <= last}
        return done

    def _forget(self, queue: str, items: set[bytes]) -> None:
        self._outliving -= items
        left = self._sent.get(queue, set())
        left -= items
        if not left:
            self._sent.pop(queue, None)

    def let_outlive(self, entry: Entry) -> None:
        """Keep `abandon` from removing a message."""
        if entry.item is not None and self._is_stream:
            self._outliving.add(entry.item)

    async def abandon(self) -> None:
        """Remove from the streams what workers have not acknowledged: they are dead, or nobody waits for them any more.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        async with self._reachable():
            for queue, items in list(self._sent.items()):
                left = items - self._outliving
                if left:
                    await self._redis().xack(queue, self._stream.consumer_group_name, *left)
                    await self._redis().xdel(queue, *left)
                    self._forget(queue, left)

    async def close(self) -> None:
        """Close the broker's connections."""
        if self._adding is not None:
            await self._adding.connection_pool.disconnect()
        if self._started:
            await self._broker.shutdown()

    def _queue_of(self, message: BrokerMessage) -> str:
        return str(message.labels.get("queue_name") or getattr(self._broker, "queue_name", ""))

    def _redis(self) -> Any:
        # Making a client takes as long as sending a message.
        if self._client is None:
            self._client = Redis(connection_pool=cast("ListQueueBroker", self._broker).connection_pool)
        return self._client

    def _sender(self) -> Any:
        if self._adding is None:
            self._adding = client_without_retries(cast("ListQueueBroker", self._broker))
        return self._adding

    @property
    def _stream(self) -> RedisStreamBroker:
        return cast("RedisStreamBroker", self._broker)

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        try:
            yield
        except SendTaskError as error:
            raise ConnectionError(f"Taskiq's broker at {address(self._broker)} does not take the task.") from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            reason = type(error).__name__
            raise ConnectionError(f"Redis at {address(self._broker)} cannot be reached ({reason}).") from error
        except RedisError as error:
            raise DeliveryError(f"Redis at {address(self._broker)} refuses: {error}") from error


def _order(item: bytes | str) -> tuple[int, int]:
    text = item.decode() if isinstance(item, bytes) else item
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)
