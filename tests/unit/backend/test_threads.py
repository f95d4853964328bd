"""Daemon threads: kept for the next job, gone soon after the last one, and no exception is lost in them."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from wove.backend.threads import DaemonThreads, in_daemon_thread


def _run(threads: DaemonThreads, job: Callable[[], object]) -> None:
    done = threading.Event()

    def notifying() -> None:
        job()
        done.set()

    threads.submit(notifying)
    assert done.wait(10)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_next_job_takes_the_idle_thread() -> None:
    threads = DaemonThreads("test-reuse", linger=10)
    used: list[threading.Thread] = []
    for _ in range(3):
        _run(threads, lambda: used.append(threading.current_thread()))
        _until(lambda: threads.idle == 1)
    assert len(set(used)) == 1
    assert used[0].daemon


def test_jobs_at_the_same_time_have_a_thread_each() -> None:
    threads = DaemonThreads("test-wide", linger=0.01)
    together = threading.Barrier(5)
    for _ in range(4):
        threads.submit(lambda: together.wait(10))
    together.wait(10)


def test_idle_threads_end() -> None:
    threads = DaemonThreads("test-end", linger=0.01)
    _run(threads, lambda: None)
    _until(lambda: not any(thread.name == "test-end" for thread in threading.enumerate()))
    _run(threads, lambda: None)


async def test_a_blocking_function_s_value_is_awaited() -> None:
    assert await in_daemon_thread(lambda left, right: left + right, 1, 2) == 3


async def test_a_blocking_function_s_exception_is_raised() -> None:
    with pytest.raises(KeyError, match="lost"):
        await in_daemon_thread({}.__getitem__, "lost")


async def test_even_a_stop_iteration_arrives() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_daemon_thread(next, iter(()))


async def test_the_loop_goes_on_meanwhile() -> None:
    released = threading.Event()
    waiting = asyncio.ensure_future(in_daemon_thread(released.wait, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    released.set()
    assert await waiting


async def test_a_cancelled_caller_does_not_wait_for_the_function() -> None:
    released, ended = threading.Event(), threading.Event()

    def function() -> None:
        released.wait(10)
        ended.set()

    waiting = asyncio.ensure_future(in_daemon_thread(function))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    released.set()
    assert await in_daemon_thread(ended.wait, 10)
