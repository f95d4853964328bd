"""A receiver session that a test can use from its own loop, and a worker's side made of raw sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from wove.backend.bodies import DEFAULT_LIMITS, ReceiveLimits
from wove.backend.frames import frame_to_bytes
from wove.backend.loop import on_io_loop
from wove.backend.receiver import ReceiverSession, open_receiver_session
from wove.backend.signing import CLAIM_REQUEST, EVENT_REQUEST, body_digest, sign_event

MIB = 1024 * 1024
SECONDS = 10.0
IMPATIENT = ReceiveLimits(head_seconds=0.3, body_seconds=0.3, body_seconds_per_mib=0.1)


@dataclass(frozen=True)
class Answer:
    """What the receiver answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)


class Receiving:
    """A session on the background loop. Every wait ends after `SECONDS`."""

    def __init__(self, session: ReceiverSession) -> None:
        self.session = session
        self.url = session.callback_url

    async def open_run(
        self,
        run_id: str,
        *,
        lease: float = 30.0,
        body: bytes | None = None,
        apart: Mapping[str, bytes] | None = None,
    ) -> str | None:
        async def opened() -> str | None:
            return self.session.open_run(run_id, lease=lease, body=body, apart=apart)

        return await on_io_loop(opened())

    async def close_run(self, run_id: str) -> None:
        async def closed() -> None:
            self.session.close_run(run_id)

        await on_io_loop(closed())

    async def request_cancel(self, run_id: str) -> None:
        async def requested() -> None:
            self.session.request_cancel(run_id)

        await on_io_loop(requested())

    async def recv(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.session.recv(), SECONDS)

    async def close(self, *, at_once: bool = False) -> None:
        await on_io_loop(self.session.close(at_once=at_once))

    async def post(self, frame: Mapping[str, Any] | bytes, **how: Any) -> Answer:
        return await post(self.url, frame, **how)

    async def received_so_far(self) -> list[dict[str, Any]]:
        """Everything that has arrived: a last event of a run that is opened for this marks the end."""
        marker = f"marker-{time.monotonic_ns()}"
        key = await self.open_run(marker)
        assert (await self.post({"type": "log", "run_id": marker, "message": "end"}, key=key)).status == 200
        frames = []
        while (frame := await self.recv())["run_id"] != marker:
            frames.append(frame)
        return frames


@asynccontextmanager
async def receiving(*, limits: ReceiveLimits = DEFAULT_LIMITS, **config: Any) -> AsyncIterator[Receiving]:
    """Open a session for the time of a block; the keywords are keys of an ``executor_config``."""
    receiving = Receiving(await on_io_loop(open_receiver_session(config, limits=limits)))
    try:
        yield receiving
    finally:
        await receiving.close(at_once=True)


def signature(
    key: str, run_id: str, body: bytes, *, worker: str = "w1", sequence: int = 1, **changes: Any
) -> dict[str, str]:
    """The headers that sign an event."""
    timestamp = int(changes.pop("timestamp", time.time()))
    return sign_event(
        key,
        run_id,
        worker_id=worker,
        sequence=sequence,
        timestamp=timestamp,
        digest=body_digest(body),
        length=len(body),
        request=changes.pop("request", EVENT_REQUEST),
    )


async def post(
    url: str,
    frame: Mapping[str, Any] | bytes,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    **signed: Any,
) -> Answer:
    """Post one event over a connection of its own, signed if there is a key."""
    body = frame if isinstance(frame, bytes) else frame_to_bytes(frame)
    fields = dict(headers or {})
    if key is not None:
        run_id = signed.pop("signed_run", None) or json.loads(body)["run_id"]
        fields |= signature(key, run_id, body, **signed)
    fields.setdefault("content-length", str(len(body)))
    async with Connection(url) as connection:
        await connection.send(connection.head("POST", fields) + body)
        return await connection.answer()


async def fetch(url: str, run_id: str, key: str | None, *, query: str = "", **signed: Any) -> Answer:
    """Fetch the rest of a run's payload."""
    run = signed.pop("signed_run", run_id)
    fields = {} if key is None else signature(key, run, b"", request=CLAIM_REQUEST, **signed)
    async with Connection(f"{url}/{run_id}") as connection:
        await connection.send(connection.head("GET", fields, path=connection.path + query))
        return await connection.answer()


class Connection:
    """A raw connection to the address of a callback URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.path = parts.path

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**26)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    def head(self, method: str, fields: Mapping[str, str], *, path: str | None = None) -> bytes:
        lines = [
            f"{method} {path or self.path} HTTP/1.1",
            f"host: {self.host}",
            *(f"{k}: {v}" for k, v in fields.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, seconds: float = SECONDS) -> Answer:
        """Read one answer.

        Raises:
            asyncio.IncompleteReadError: the receiver closed the connection without one.
        """
        async with asyncio.timeout(seconds):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            if headers.get("transfer-encoding") == "chunked":
                return Answer(int(status.split()[1]), headers, await self._chunks())
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return Answer(int(status.split()[1]), headers, body)

    async def ends(self) -> None:
        """Wait until the receiver has closed the connection, whatever it says before."""
        async with asyncio.timeout(SECONDS):
            try:
                await self.reader.read(-1)
            except ConnectionError:
                pass

    async def _chunks(self) -> bytes:
        found = b""
        while size := int(await self.reader.readline(), 16):
            found += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return found


def event(run_id: str = "a", kind: str = "heartbeat", **more: Any) -> dict[str, Any]:
    """Return an event of the task ``report``."""
    return {"type": kind, "run_id": run_id, "task_id": "report", **more}


async def still_works(receiver: Receiving) -> bool:
    """Whether a run that is open now gets its result."""
    key = await receiver.open_run(run_id := f"probe-{time.monotonic_ns()}")
    posted = await receiver.post(event(run_id, "task_result", result=1), key=key)
    return posted.status == 200 and (await receiver.received_so_far())[-1]["run_id"] == run_id


async def answered_without_body(url: str, method: str = "POST", **fields: str) -> int:
    """The status that a request gets whose body is announced and never sent."""
    async with Connection(url) as connection:
        headers = {"content-length": "10000000", **{k.replace("_", "-"): v for k, v in fields.items()}}
        await connection.send(connection.head(method, headers))
        return (await connection.answer()).status
