"""Threads for blocking calls on the background loop."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from wove.backend.loop import on_io_loop
from wove.backend.thread_executor import MOST_THREADS, DaemonThreadExecutor

HANGS_AT_EXIT = """
import asyncio, threading
from wove.backend.loop import io_loop

hung = threading.Event()

async def hang():
    await asyncio.to_thread(lambda: (hung.set(), threading.Event().wait()))

io_loop().spawn(hang())
assert hung.wait(30)
"""


def fail() -> None:
    raise ZeroDivisionError


def test_a_call_returns_what_its_function_returns() -> None:
    assert DaemonThreadExecutor().submit(pow, 2, 10).result(30) == 1024


def test_a_call_raises_what_its_function_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        DaemonThreadExecutor().submit(fail).result(30)


async def test_the_background_loop_uses_it_for_to_thread() -> None:
    async def where() -> threading.Thread:
        return await asyncio.to_thread(threading.current_thread)

    assert (await on_io_loop(where())).daemon


def test_no_more_threads_run_than_allowed_and_all_calls_are_made() -> None:
    executor = DaemonThreadExecutor()
    guard, running, most = threading.Lock(), [0], [0]

    def call(number: int) -> int:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with guard:
            running[0] -= 1
        return number

    futures = [executor.submit(call, number) for number in range(3 * MOST_THREADS)]
    assert [future.result(30) for future in futures] == list(range(3 * MOST_THREADS))
    assert 1 < most[0] <= MOST_THREADS


def test_a_shutdown_waits_for_nobody_and_starts_nothing_more() -> None:
    executor, released = DaemonThreadExecutor(), threading.Event()
    for _ in range(MOST_THREADS):
        executor.submit(released.wait, 30)
    waiting = executor.submit(pow, 2, 10)
    executor.shutdown()
    released.set()
    with pytest.raises(TimeoutError):
        waiting.result(0.1)


def test_a_cancelled_call_is_not_made() -> None:
    executor, released = DaemonThreadExecutor(), threading.Event()
    for _ in range(MOST_THREADS):
        executor.submit(released.wait, 30)
    made = threading.Event()
    assert executor.submit(made.set).cancel()
    last = executor.submit(pow, 2, 10)
    released.set()
    assert last.result(30) == 1024
    assert not made.is_set()


def test_a_call_that_hangs_does_not_hold_up_the_interpreter_s_exit() -> None:
    subprocess.run([sys.executable, "-c", HANGS_AT_EXIT], check=True, timeout=20)
