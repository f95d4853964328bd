"""The tasks of the conformance scenarios. A worker imports them from here; they need nothing but the standard library.

Tasks that have to meet the test in the middle of their work report in at a `wove.testing.board.Board`.
"""

import asyncio
import hashlib
import os
import sys
import threading
from typing import Any

from wove.testing.board import Attendance


def add(left: int, right: int) -> int:
    """Return a sum."""
    return left + right


async def add_later(left: int, right: int) -> int:
    """Return a sum, from a coroutine."""
    await asyncio.sleep(0)
    return left + right


def double(item: int) -> int:
    """Return twice an item."""
    return 2 * item


def fail(message: str) -> None:
    """Raise ValueError."""
    raise ValueError(message)


class Unbuildable(Exception):
    """An exception that pickles, but whose class cannot be called with what the pickle holds."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (code {code})")


def fail_unbuildable() -> None:
    """Raise an exception that the other side cannot rebuild."""
    raise Unbuildable(17, "no copy of me")


def hold_lock() -> dict[str, Any]:
    """Return something that cannot be pickled."""
    return {"kept": {"lock": threading.Lock()}}


def leave() -> None:
    """Call sys.exit."""
    sys.exit(7)


def digest(blob: bytes) -> str:
    """Return the SHA-256 of an argument, hexadecimal."""
    return hashlib.sha256(blob).hexdigest()


def make_blob(size: int) -> bytes:
    """Return that many bytes, which no compression makes small."""
    return hashlib.shake_128(b"wove").digest(size)


def run_asyncio() -> str:
    """Use an event loop of its own, as synchronous code may."""

    async def inner() -> str:
        await asyncio.sleep(0)
        return "ran"

    return asyncio.run(inner())


def attend(board: str, label: str) -> int:
    """Report in, go on at once and return the process id."""
    with Attendance(board, label) as attendance:
        attendance.report_in()
        return os.getpid()


def attend_for(item: object, board: str, label: str) -> int:
    """Report in for an item, block until released and return the process id."""
    with Attendance(board, label) as attendance:
        attendance.wait()
        return os.getpid()


def wait_at(board: str, label: str) -> str:
    """Report in and block until released."""
    with Attendance(board, label) as attendance:
        attendance.wait()
    return "released"


async def wait_at_later(board: str, label: str) -> str:
    """Report in and wait in a coroutine until released."""
    with Attendance(board, label) as attendance:
        await attendance.wait_later()
    return "released"


def vanish(board: str, label: str) -> None:
    """Report in and end the process without a word, as a crash in C code does; the exit code is 0."""
    with Attendance(board, label) as attendance:
        attendance.wait()
        os._exit(0)


def wait_and_return(board: str, label: str, size: int) -> bytes:
    """Report in, block until released and return that many bytes."""
    with Attendance(board, label) as attendance:
        attendance.wait()
    return make_blob(size)
