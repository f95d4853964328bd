"""The worker's HTTP client: one kept-alive connection per process, as long as one request follows another.

A blocking socket and a reader of answers, because that is what a no-op task can afford. Per small POST on loopback,
kept alive: this 0.05 ms, `http.client` 0.11 ms, `httpx.Client` 0.4 ms, `httpx.AsyncClient` 0.85 ms; and importing httpx
takes 200 ms, which every process of a batch system would pay. Environment proxies are not used, redirects are not
followed.
"""

import atexit
import os
import re
import select
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from wove.backend.answers import Answer, read_answer

if TYPE_CHECKING:
    import ssl

# An answer to an event is a few bytes of JSON.
LONGEST_ANSWER = 64 * 1024
_MOST_IDLE = 8
_IDLE_SECONDS = 60.0
_PORTS = {"http": 80, "https": 443}
# Head and body leave in one packet up to this size, and are not copied together above it.
_ONE_PACKET = 64 * 1024
# What nearly every callback URL looks like: no user, no query, nothing to be decoded, and no address of IPv6.
_PLAIN_URL = re.compile(r"(https?)://([a-z0-9_.-]+)(?::([0-9]{1,5}))?((?:/[A-Za-z0-9._~-]+)*/?)")


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. ``origin`` may be shown in messages; ``path`` holds the token and may not."""

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def origin(self) -> str:
        """The address without the path, e.g. ``http://web:9010``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@lru_cache(maxsize=64)
def target_of(url: str) -> Target:
    """Return the parts of an ``http`` or ``https`` URL.

    Raises:
        ValueError: it is none. The message does not repeat it, because it may hold a token.
    """
    plain = _PLAIN_URL.fullmatch(url)
    if plain is not None and 0 < int(plain[3] or 1) < 2**16:
        return Target(plain[1], plain[2], int(plain[3] or _PORTS[plain[1]]), plain[4] or "/")
    # Takes milliseconds to import.
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    clean = path.isascii() and path.isprintable() and " " not in path
    if parts.scheme not in ("http", "https") or not host or not clean:
        raise ValueError(
            "The callback URL must look like http://host:port/wove/events/<token>. "
            "Set callback_url in the environment's executor_config."
        )
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


class Connections:
    """Idle connections, and requests over them. May be used from any thread; a forked child has its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[str, float, socket.socket]] = []

    @property
    def idle(self) -> int:
        """How many connections are kept for the next request."""
        return len(self._idle)

    def exchange(
        self,
        target: Target,
        *,
        method: str = "POST",
        headers: Mapping[str, str],
        body: bytes = b"",
        connect_seconds: float = 5.0,
        answer_seconds: float = 10.0,
        longest_answer: int = LONGEST_ANSWER,
    ) -> Answer:
        """Send one request and return its answer.

        A kept-alive connection that the other side has closed meanwhile is replaced by a new one.

        Args:
            target: from `target_of`.
            method: the HTTP method.
            headers: header values by name; ``host`` and ``content-length`` are added.
            body: the request's body.
            connect_seconds: for opening a connection, where one is needed.
            answer_seconds: for sending the whole request and receiving the whole answer.
            longest_answer: bytes of body; a longer answer is an error.

        Raises:
            OSError: the other side was not reached, did not answer in time, or answered something that is not HTTP.
        """
        request = _request(target, method, headers, body)
        reused = self._take(target.origin)
        if reused is not None:
            try:
                return self._transfer(reused, target, method, request, answer_seconds, longest_answer)
            except TimeoutError:
                raise
            except OSError:
                pass  # It was closed between two requests; the request is repeated on a new connection.
        connection = _open(target, connect_seconds)
        return self._transfer(connection, target, method, request, answer_seconds, longest_answer)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def forget(self) -> None:
        """Close this process's copies of the parent's connections, after a fork. The parent's stay open."""
        # No lock: another thread of the parent may have held it at the time of the fork.
        for _, _, connection in self._idle:
            connection.close()

    def _transfer(
        self,
        connection: socket.socket,
        target: Target,
        method: str,
        request: tuple[bytes, ...],
        seconds: float,
        longest: int,
    ) -> Answer:
        deadline = time.monotonic() + seconds
        try:
            _send(connection, request, seconds)
            answer, reusable = read_answer(connection, method=method, deadline=deadline, longest=longest)
        except BaseException:
            connection.close()
            raise
        if reusable:
            self._give(target.origin, connection)
        else:
            connection.close()
        return answer

    def _take(self, origin: str) -> socket.socket | None:
        if not self._idle:
            return None
        with self._lock:
            self._drop_old()
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == origin:
                    connection = self._idle.pop(index)[2]
                    if not _has_input(connection):
                        return connection
                    connection.close()  # All that an idle connection can have to say is that it is closed.
        return None

    def _give(self, origin: str, connection: socket.socket) -> None:
        with self._lock:
            self._idle.append((origin, time.monotonic(), connection))
            if len(self._idle) > _MOST_IDLE:
                self._idle.pop(0)[2].close()

    def _drop_old(self) -> None:
        oldest = time.monotonic() - _IDLE_SECONDS
        while self._idle and self._idle[0][1] < oldest:
            self._idle.pop(0)[2].close()


def _request(target: Target, method: str, headers: Mapping[str, str], body: bytes) -> tuple[bytes, ...]:
    lines = [f"{method} {target.path} HTTP/1.1", f"host: {target.origin.partition('://')[2]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}\r\n\r\n")
    text = "\r\n".join(lines)
    if text.count("\r\n") != len(lines) + 1 or text.count("\n") != len(lines) + 1:
        raise ValueError("A header of an event holds a line break.")
    head = text.encode("ascii")
    return (head + body,) if len(body) < _ONE_PACKET else (head, body)


def _open(target: Target, seconds: float) -> socket.socket:
    # As text, a name makes Python load the tables of international ones.
    host = target.host.encode("ascii") if target.host.isascii() else target.host
    connection = socket.create_connection((host, target.port), seconds)  # type: ignore[arg-type]
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _tls().wrap_socket(connection, server_hostname=target.host) if target.scheme == "https" else connection
    except BaseException:
        connection.close()
        raise


@lru_cache(maxsize=1)
def _tls() -> "ssl.SSLContext":
    # Takes 8 ms to import, and most callback URLs need none.
    import ssl

    return ssl.create_default_context()


def _send(connection: socket.socket, request: tuple[bytes, ...], seconds: float) -> None:
    connection.settimeout(seconds)
    try:
        for part in request:
            connection.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        # The receiver may have answered before it read the whole body, as with 413, and then closed.
        if len(request) == 1 or not _has_input(connection):
            raise


def _has_input(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    # select() cannot look at file descriptors above 1023.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


_connections = Connections()


def connections() -> Connections:
    """Return the connections of this process."""
    return _connections


def _forget_after_fork() -> None:
    global _connections
    inherited, _connections = _connections, Connections()
    inherited.forget()


def _close_at_exit() -> None:
    _connections.close()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_forget_after_fork)
