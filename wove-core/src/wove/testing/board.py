"""A meeting point of a test and the tasks that it sent away: a task reports in and waits, the test sees how it left.

Tests need no sleeps with it: they wait until a task is there, act, and wait until it is gone.
"""

import asyncio
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

# The board has taken note of a visit; the visitor may go on.
_SEEN, _GO = b"+", b"go\n"


class Visit:
    """One task that reported in.

    Attributes:
        label: what the task said to be.
        pid: the process that executes it.
        ended: how it left: ``"released"``, ``"stopped: <exception>"``, ``"vanished"`` when its process died without a
            word, or None while it is there.
    """

    __slots__ = ("ended", "label", "pid")

    def __init__(self, label: str, pid: int) -> None:
        self.label = label
        self.pid = pid
        self.ended: str | None = None


class Board:
    """Where tasks report in, over TCP, until the board is closed. Its methods may be called from any thread.

    Args:
        host: the address to listen on; the one under which workers reach the test.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._changed = threading.Condition()
        self._visits: list[Visit] = []
        self._connections: dict[Visit, socket.socket] = {}
        self._released: set[str] = set()
        self._server = _Server((host, 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="board", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port``, to be given to the tasks."""
        return f"{self._host}:{self._server.server_address[1]}"

    def visits(self, label: str) -> list[Visit]:
        """Return the visits under a label so far, in their order."""
        with self._changed:
            return [visit for visit in self._visits if visit.label == label]

    def wait_for(self, label: str, *, count: int = 1, seconds: float = 30.0) -> list[Visit]:
        """Return the visits under a label as soon as there are `count`.

        Raises:
            TimeoutError: there were fewer after that many seconds.
        """
        self._wait(lambda: len(self.visits(label)) >= count, seconds, f"{count} task(s) to report in as {label!r}")
        return self.visits(label)

    def wait_for_end(self, visit: Visit, *, seconds: float = 30.0) -> str:
        """Return how a visit ended, as soon as it has.

        Raises:
            TimeoutError: the task was still there after that many seconds.
        """
        self._wait(lambda: visit.ended is not None, seconds, f"the task {visit.label!r} to leave")
        return visit.ended or ""

    def release(self, label: str) -> None:
        """Let every task under a label go on, those that report in later too."""
        with self._changed:
            self._released.add(label)
            waiting = [connection for visit, connection in self._connections.items() if visit.label == label]
        for connection in waiting:
            _send(connection, _GO)

    def close(self) -> None:
        """Let everybody go on and stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
        with self._changed:
            connections = list(self._connections.values())
        for connection in connections:
            _hang_up(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                seen = ", ".join(f"{visit.label} ({visit.ended or 'there'})" for visit in self._visits) or "nobody"
                raise TimeoutError(f"Waited {seconds:g} s for {what}. Seen so far: {seen}.")

    def _arrived(self, visit: Visit, connection: socket.socket) -> None:
        with self._changed:
            self._visits.append(visit)
            self._connections[visit] = connection
            released = visit.label in self._released
            self._changed.notify_all()
        _send(connection, _SEEN)
        if released:
            _send(connection, _GO)

    def _left(self, visit: Visit, how: str) -> None:
        with self._changed:
            visit.ended = how
            self._connections.pop(visit, None)
            self._changed.notify_all()


class _Handler(socketserver.StreamRequestHandler):
    """Serves one visit in a thread of its own."""

    server: "_Server"

    def handle(self) -> None:
        try:
            hello = json.loads(self.rfile.readline())
        except (OSError, ValueError):
            return
        visit = Visit(str(hello["label"]), int(hello["pid"]))
        self.server.board._arrived(visit, self.connection)
        try:
            farewell = self.rfile.readline().decode().strip()
        except OSError:
            farewell = ""
        self.server.board._left(visit, farewell or "vanished")


class _Server(socketserver.ThreadingTCPServer):
    # Two hundred tasks may report in at once.
    request_queue_size = 512
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], board: Board) -> None:
        self.board = board
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a visitor that breaks off is what many tests are about."""


def _send(connection: socket.socket, word: bytes) -> None:
    try:
        connection.sendall(word)
    except OSError:
        pass


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Attendance:
    """The task's side of a visit: reports in, and tells how it leaves. Used as a context manager by a task.

    Args:
        address: the board's address.
        label: what the task says to be.
    """

    def __init__(self, address: str, label: str) -> None:
        host, _, port = address.rpartition(":")
        self._label = label
        self._connection = socket.create_connection((host, int(port)), timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        word = "released" if kind is None else f"stopped: {kind.__name__}"
        try:
            self._connection.sendall(word.encode() + b"\n")
        except OSError:
            pass
        self._connection.close()

    def report_in(self) -> None:
        """Return when the board has taken note. Inside of the block, so that whatever comes next is told as well."""
        self._connection.sendall(json.dumps({"label": self._label, "pid": os.getpid()}).encode() + b"\n")
        self._connection.recv(len(_SEEN))

    def wait(self) -> None:
        """Report in and block until released. Python code runs every few milliseconds, so it can be interrupted."""
        self.report_in()
        self._connection.settimeout(0.02)
        while not self._is_released():
            time.sleep(0)

    async def wait_later(self) -> None:
        """Report in and wait in a coroutine until released."""
        self.report_in()
        self._connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_recv(self._connection, len(_GO))
        except OSError:
            pass

    def _is_released(self) -> bool:
        try:
            self._connection.recv(len(_GO))
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
