"""HTTP requests as the fault proxy reads, keeps and passes them on."""

import asyncio
import json
from dataclasses import dataclass

_LONGEST_HEAD = 64 * 1024


@dataclass(slots=True)
class Request:
    """A request that came through.

    Attributes:
        method: ``POST`` or ``GET``.
        path: as the worker sent it.
        headers: by lower-case name.
        body: the bytes.
        event: the event's type; empty for a request without one.
        run_id: the event's run; empty for a request without one.
        statuses: what the receiver answered, once for each time that the request was passed on.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    event: str
    run_id: str
    statuses: list[int]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read the next request of a connection; None at its end."""
    first = await reader.readline()
    if not first:
        return None
    method, path, _ = first.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
        if len(headers) > 100:
            raise ConnectionAbortedError("Too many headers.")
    body = await _read_body(reader, headers)
    event, run_id = _identity_of(body)
    return Request(method, path, headers, body, event, run_id, [])


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    del headers["transfer-encoding"]
    chunks = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)


def _identity_of(body: bytes) -> tuple[str, str]:
    # Large bodies are results; parsing 27 MB of JSON to learn that costs too much, so only their start is looked at.
    if len(body) > _LONGEST_HEAD:
        return "task_result", _text_after(body, b'"run_id":')
    try:
        frame = json.loads(body)
    except ValueError:
        return "", ""
    return (str(frame.get("type", "")), str(frame.get("run_id", ""))) if isinstance(frame, dict) else ("", "")


def _text_after(body: bytes, name: bytes) -> str:
    for part in (body[:_LONGEST_HEAD], body[-_LONGEST_HEAD:]):
        _, found, rest = part.partition(name)
        if found:
            return rest.split(b'"', 2)[1].decode("latin-1")
    return ""


def head_of(request: Request) -> bytes:
    """Return the head of a request as it is passed on: over a connection of its own."""
    headers = {**request.headers, "content-length": str(len(request.body)), "connection": "close"}
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def kept_alive(answer: bytes) -> bytes:
    """Return an answer without the header that closes the connection."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(lines) + separator + body


def answer_bytes(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return an answer without a body."""
    lines = [f"HTTP/1.1 {status} Scripted", "content-length: 0", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
