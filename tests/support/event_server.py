"""A receiver of events whose answers a test writes down: raw sockets, so that it can also misbehave."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wove.backend.frames import deserialize_frame


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def event(self) -> dict[str, Any]:
        """The body's JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def kind(self) -> str:
        """The event's type, or the method of a request that carries none."""
        return str(self.event["type"]) if self.body else self.method


@dataclass(frozen=True)
class Move:
    """What the server does with a request: answer, or with status 0 close the connection without a word.

    Attributes:
        status: the HTTP status; 0 drops the connection.
        body: the answer's body; a mapping is sent as JSON.
        headers: more headers.
        after: what happens before the answer, e.g. waiting for an event of the test.
        raw: bytes in place of a well-formed answer.
    """

    status: int = 200
    body: Mapping[str, Any] | bytes = field(default_factory=lambda: {"cancel": False, "lease": 30.0})
    headers: Mapping[str, str] = field(default_factory=dict)
    after: Callable[[], object] | None = None
    raw: bytes | None = None


DROP = Move(status=0)
OVER = Move(status=410)
CANCEL = Move(body={"cancel": True, "lease": 30.0})


class EventServer:
    """Listens on a loopback port. `rule` decides about each request; by default everything is accepted."""

    def __init__(self) -> None:
        self.rule: Callable[[Request], Move] = lambda request: Move()
        self.requests: list[Request] = []
        self.close_after_answer = False
        self._arrived = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._connections = 0
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """The callback URL."""
        return f"http://127.0.0.1:{self._port}/wove/events/the-token"

    @property
    def kinds(self) -> list[str]:
        """The types of the events that have arrived."""
        return [request.kind for request in self.requests]

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._listener is not None

    @property
    def open_sockets(self) -> list[socket.socket]:
        """The server's ends of the connections that are open."""
        return list(self._sockets)

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        return self._connections

    def open(self) -> None:
        """Listen, after `close` on the same port again."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections and end those that are open."""
        self.stop_listening()
        self.hang_up()

    def stop_listening(self) -> None:
        """Refuse connections."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def hang_up(self) -> None:
        """End the open connections."""
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def script(self, *moves: Move) -> None:
        """Answer the next requests with these moves, and every later one with success."""
        left = list(moves)
        self.rule = lambda request: left.pop(0) if left else Move()

    def wait_for(self, kind: str, count: int = 1, *, seconds: float = 20.0) -> list[Request]:
        """Return the requests of a kind as soon as there are so many."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while True:
                found = [request for request in self.requests if request.kind == kind]
                left = deadline - time.monotonic()
                if len(found) >= count:
                    return found
                if left <= 0:
                    raise TimeoutError(f"only {len(found)} of {count} {kind} events came, in all: {self.kinds}")
                self._arrived.wait(left)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections += 1
            self._sockets.add(connection)
            threading.Thread(target=self._serve, args=(connection, self._connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as incoming:
            while (request := _read(incoming, number)) is not None:
                with self._arrived:
                    self.requests.append(request)
                    move = self.rule(request)
                    self._arrived.notify_all()
                if move.after is not None:
                    move.after()
                if move.status == 0:
                    break
                connection.sendall(move.raw if move.raw is not None else _answer(move))
                if self.close_after_answer:
                    break
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(connection)


def _read(incoming: Any, number: int) -> Request | None:
    line = incoming.readline().decode()
    if not line.strip():
        return None
    method, path, _ = line.split()
    headers = {}
    while (header := incoming.readline().decode().rstrip("\r\n")) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body, number)


def _answer(move: Move) -> bytes:
    body = move.body if isinstance(move.body, bytes) else json.dumps(move.body).encode()
    lines = [f"HTTP/1.1 {move.status} X", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in move.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def is_final(request: Request) -> bool:
    """Whether a request carries the outcome of a run."""
    return request.kind in ("task_result", "task_error", "task_cancelled")


def final_event(server: EventServer) -> dict[str, Any]:
    """The one outcome that has arrived, with what its pickles hold."""
    finals = [request for request in server.requests if is_final(request)]
    assert len(finals) == 1, server.kinds
    return deserialize_frame(finals[0].event)


@contextlib.contextmanager
def event_server() -> Iterator[EventServer]:
    """Give a server that is closed afterwards."""
    server = EventServer()
    try:
        yield server
    finally:
        server.close()
