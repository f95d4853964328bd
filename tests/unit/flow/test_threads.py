"""The threads of one weave."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from wove.flow.threads import ThreadPool

SECONDS = 10.0


def alive(name: str = "wove-task") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def wait_until(condition: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.001)


@contextmanager
def pool_of(limit: int) -> Iterator[ThreadPool]:
    """A pool whose threads have all ended when the block has."""
    before = set(alive())
    pool = ThreadPool(limit)
    try:
        yield pool
    finally:
        pool.close()
        wait_until(lambda: set(alive()) <= before, what="the threads end")


class Gate:
    """A job that says when it begins and ends when it may."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self.began.set()
        assert self.may_end.wait(SECONDS)
        self.ended.set()


def test_a_pool_starts_no_thread_before_there_is_a_job() -> None:
    before = alive()
    with pool_of(4):
        assert alive() == before


def test_a_job_finds_the_thread_that_has_become_idle() -> None:
    with pool_of(4) as pool:
        names: list[str] = []
        for _ in range(20):
            assert pool.submit(lambda: names.append(threading.current_thread().name))
            # A thread is idle a moment after its job has ended, and nothing public tells.
            wait_until(lambda: len(pool._idle) == 1, what="the thread is idle")
        assert len(names) == 20
        assert len(set(names)) == 1


def test_no_more_threads_than_the_limit_run_jobs() -> None:
    with pool_of(3) as pool:
        gates = [Gate() for _ in range(8)]
        for gate in gates:
            pool.submit(gate)
        for gate in gates[:3]:
            assert gate.began.wait(SECONDS)
        assert not any(gate.began.is_set() for gate in gates[3:])
        assert pool.crowded
        for gate in gates:
            gate.may_end.set()
        for gate in gates:
            assert gate.ended.wait(SECONDS)
        assert not pool.crowded


def test_waiting_jobs_run_in_the_order_in_which_they_came() -> None:
    with pool_of(1) as pool:
        gate, order = Gate(), list[int]()
        pool.submit(gate)
        for number in range(100):
            pool.submit(partial(order.append, number))
        gate.may_end.set()
        wait_until(lambda: len(order) == 100, what="all jobs run")
        assert order == list(range(100))


def test_submitting_tells_whether_the_job_starts_at_once() -> None:
    with pool_of(1) as pool:
        gate = Gate()
        assert pool.submit(gate)
        assert not pool.submit(lambda: None)
        gate.may_end.set()


def test_a_lent_place_lets_an_urgent_job_run_beside_the_one_that_waits() -> None:
    with pool_of(1) as pool:
        blocked, urgent = Gate(), Gate()
        pool.submit(blocked)
        assert blocked.began.wait(SECONDS)
        pool.submit(urgent, urgent=True)
        pool.lend()
        assert urgent.began.wait(SECONDS)
        for gate in (blocked, urgent):
            gate.may_end.set()


def test_a_lent_place_lets_no_ordinary_job_start() -> None:
    with pool_of(1) as pool:
        blocked, ordinary, urgent = Gate(), Gate(), Gate()
        pool.submit(blocked)
        assert blocked.began.wait(SECONDS)
        pool.submit(ordinary)
        pool.lend()
        pool.submit(urgent, urgent=True)
        urgent.may_end.set()
        assert urgent.ended.wait(SECONDS)
        assert not ordinary.began.is_set()
        pool.reclaim()
        blocked.may_end.set()
        assert ordinary.began.wait(SECONDS)
        ordinary.may_end.set()


def test_a_replaced_thread_makes_a_place_for_any_job_until_it_comes_back() -> None:
    with pool_of(1) as pool:
        stuck, ordinary, later = Gate(), Gate(), Gate()
        pool.submit(stuck)
        assert stuck.began.wait(SECONDS)
        pool.submit(ordinary)
        pool.replace()
        assert ordinary.began.wait(SECONDS)
        stuck.may_end.set()
        assert stuck.ended.wait(SECONDS)
        pool.restore()
        pool.submit(later)
        assert not later.began.is_set()
        ordinary.may_end.set()
        assert later.began.wait(SECONDS)
        later.may_end.set()


def test_after_lending_and_replacing_a_thousand_times_the_limit_is_what_it_was() -> None:
    with pool_of(2) as pool:
        for _ in range(1000):
            pool.lend()
            pool.submit(lambda: None, urgent=True)
            pool.reclaim()
            pool.replace()
            pool.submit(lambda: None)
            pool.restore()
        wait_until(lambda: not pool.crowded, what="all of them run")
        gates = [Gate() for _ in range(4)]
        for gate in gates:
            pool.submit(gate)
        for gate in gates[:2]:
            assert gate.began.wait(SECONDS)
        assert pool.crowded
        assert [gate.began.is_set() for gate in gates] == [True, True, False, False]
        for gate in gates:
            gate.may_end.set()


def test_jobs_that_wait_for_jobs_to_any_depth_end_with_one_thread() -> None:
    with pool_of(1) as pool:
        done = threading.Event()

        def nested(depth: int) -> None:
            if depth == 0:
                return
            inner = threading.Event()

            def job() -> None:
                nested(depth - 1)
                inner.set()

            pool.lend()
            pool.submit(job, urgent=True)
            assert inner.wait(SECONDS)
            pool.reclaim()
            if depth == 50:
                done.set()

        pool.submit(lambda: nested(50))
        assert done.wait(SECONDS)


def test_no_job_is_lost_and_the_limit_holds_when_many_threads_submit_lend_and_reclaim_at_once() -> None:
    limit, jobs_each, callers = 3, 300, 4
    before = set(alive())
    lock = threading.Lock()
    running = most_running = most_threads = finished = 0

    def leaf() -> None:
        nonlocal running, most_running, most_threads, finished
        with lock:
            running += 1
            most_running = max(most_running, running)
            most_threads = max(most_threads, len(set(alive()) - before))
        time.sleep(0)
        with lock:
            running -= 1
            finished += 1

    with pool_of(limit) as pool:

        def waiting_job() -> None:
            inner = threading.Event()

            def job() -> None:
                leaf()
                inner.set()

            pool.lend()
            pool.submit(job, urgent=True)
            assert inner.wait(SECONDS)
            pool.reclaim()
            leaf()

        def caller() -> None:
            for number in range(jobs_each):
                pool.submit(waiting_job if number % 3 == 0 else leaf)

        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = callers * (jobs_each + len(range(0, jobs_each, 3)))
        wait_until(lambda: finished == expected, what="every job has run")

    # A thread that comes back from waiting runs beside the one that has its place, until that one is done.
    assert most_running <= 2 * limit
    assert most_threads <= 2 * limit


def test_after_close_waiting_jobs_are_dropped_and_busy_threads_end_by_themselves() -> None:
    before = set(alive())
    pool = ThreadPool(1)
    gate, dropped = Gate(), Gate()
    pool.submit(gate)
    assert gate.began.wait(SECONDS)
    pool.submit(dropped)
    pool.close()
    pool.submit(dropped)
    gate.may_end.set()
    wait_until(lambda: set(alive()) == before, what="the thread ends")
    assert not dropped.began.is_set()


def test_closing_while_threads_take_jobs_does_not_fail() -> None:
    for _ in range(200):
        with pool_of(4) as pool:
            for _ in range(20):
                pool.submit(lambda: None)


class _Exhausted:
    """Lets threads start until a number of them has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        self._left = threads
        start = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            if self._left == 0:
                raise RuntimeError("can't start new thread")
            self._left -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)


def test_where_the_system_gives_fewer_threads_those_that_there_are_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pool_of(10) as pool:
        _Exhausted(monkeypatch, threads=2)
        done = list[int]()
        for number in range(50):
            pool.submit(partial(done.append, number))
        wait_until(lambda: len(done) == 50, what="all jobs run")


def test_where_the_system_gives_no_thread_at_all_submitting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(10) as pool:
        _Exhausted(monkeypatch, threads=0)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(lambda: None)
        assert not pool.crowded


def test_a_job_is_refused_where_the_only_thread_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool_of(10) as pool:
        _Exhausted(monkeypatch, threads=1)
        gate = Gate()
        pool.submit(gate)
        pool.lend()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(lambda: None)
        pool.reclaim()
        gate.may_end.set()
