"""Reading and executing in one thread, and in more when tasks take long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

import pytest

from tests.support.stdio import until
from wove.backend.task_threads import TaskThreads

SECONDS = 10.0
Job = Callable[[], object]


def _execute(job: Job) -> None:
    job()


class Worker:
    """Threads whose jobs come through `send`; `main` is the thread that calls `work`."""

    def __init__(self, *, limit: int) -> None:
        self.sent: SimpleQueue[Job | None] = SimpleQueue()
        self.readers: list[str] = []
        self._peeked: list[Job | None] = []
        self.threads: TaskThreads[Job] = TaskThreads(
            execute=_execute, readable=self._readable, receive=self._receive, limit=limit
        )
        self.main = threading.Thread(target=self.threads.work, name="main", daemon=True)

    def send(self, *jobs: Job) -> None:
        for job in jobs:
            self.sent.put(job)

    def end(self) -> None:
        self.sent.put(None)
        self.main.join(SECONDS)
        assert not self.main.is_alive()

    def _readable(self, seconds: float) -> bool:
        try:
            job = self.sent.get(timeout=seconds)
        except Empty:
            return False
        self._peeked.append(job)
        return True

    def _receive(self) -> None:
        self.readers.append(threading.current_thread().name)
        job = self._peeked.pop() if self._peeked else self.sent.get()
        if job is None:
            self.threads.close()
        else:
            self.threads.put(job)


@contextmanager
def working(*, limit: int) -> Iterator[Worker]:
    worker = Worker(limit=limit)
    worker.main.start()
    overseen = threading.Event()

    def oversee() -> None:
        while not overseen.wait(0.003):
            worker.threads.oversee()

    overseer = threading.Thread(target=oversee)
    overseer.start()
    try:
        yield worker
        worker.end()
    finally:
        overseen.set()
        overseer.join()


def test_short_jobs_run_in_the_thread_that_reads() -> None:
    ran_in: list[str] = []
    with working(limit=4) as worker:
        worker.send(*(lambda: ran_in.append(threading.current_thread().name),) * 20)
        until(lambda: len(ran_in) == 20)
    assert "main" in ran_in


def test_jobs_begin_in_their_order() -> None:
    begun: list[int] = []
    with working(limit=1) as worker:
        worker.send(*(lambda number=number: begun.append(number) for number in range(200)))
        until(lambda: len(begun) == 200)
    assert begun == list(range(200))


@pytest.mark.parametrize("limit", [2, 5])
def test_as_many_jobs_as_allowed_run_side_by_side(limit: int) -> None:
    barrier = threading.Barrier(limit)
    met: list[int] = []
    with working(limit=limit) as worker:
        worker.send(*(lambda: met.append(barrier.wait(SECONDS)),) * limit)
        until(lambda: len(met) == limit)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_jobs_run_side_by_side_than_allowed(limit: int) -> None:
    running, most, lock = 0, 0, threading.Lock()
    done: list[None] = []

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        done.append(None)

    with working(limit=limit) as worker:
        worker.send(*(job,) * 12)
        until(lambda: len(done) == 12)
    assert most == limit


def test_somebody_reads_while_the_main_thread_is_busy() -> None:
    release, read_on = threading.Event(), threading.Event()
    with working(limit=1) as worker:
        worker.send(lambda: release.wait(SECONDS))
        until(lambda: worker.sent.empty())
        worker.send(lambda: None)
        until(lambda: worker.sent.empty())
        assert worker.readers[-1] != "main"
        release.set()
        worker.send(read_on.set)
        assert read_on.wait(SECONDS)


def test_the_main_thread_reads_again_when_it_has_nothing_else_to_do() -> None:
    with working(limit=2) as worker:
        release = threading.Event()
        worker.send(lambda: release.wait(SECONDS))
        until(lambda: worker.sent.empty())
        worker.send(lambda: None)
        until(lambda: worker.sent.empty())
        release.set()

        def main_reads() -> bool:
            worker.send(lambda: None)
            until(lambda: worker.sent.empty())
            return worker.readers[-1] == "main"

        until(main_reads)


def test_a_job_that_waits_behind_a_long_one_gets_a_thread_although_nothing_more_comes() -> None:
    release, ran = threading.Event(), threading.Event()
    with working(limit=2) as worker:
        worker.send(lambda: release.wait(SECONDS), ran.set)
        assert ran.wait(SECONDS)
        release.set()


def test_many_long_and_short_jobs_all_run() -> None:
    done: list[int] = []

    def job(number: int) -> None:
        if number % 17 == 0:
            threading.Event().wait(0.01)
        done.append(number)

    with working(limit=3) as worker:
        worker.send(*(lambda number=number: job(number) for number in range(500)))
        until(lambda: len(done) == 500)
    assert sorted(done) == list(range(500))
