"""Timing beats on other threads: on time, never twice at once, and nothing left when there is nothing to time."""

import sys
import threading
import time
from collections.abc import Callable

import pytest

from wove.backend.pacemaker import Pacemaker
from wove.backend.threads import DaemonThreads


class Beat:
    """A beat that counts its calls and is due again after `interval`."""

    def __init__(self, interval: float = 3600.0, *, during: Callable[[], object] | None = None) -> None:
        self.calls = 0
        self.called = threading.Semaphore(0)
        self._interval = interval
        self._during = during

    def __call__(self) -> float:
        self.calls += 1
        self.called.release()
        if self._during is not None:
            self._during()
        return time.monotonic() + self._interval

    def wait(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self.called.acquire(timeout=20)


def _due_in(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_beat_is_called_when_it_is_due_and_again_when_it_says() -> None:
    pacemaker, beat = Pacemaker(), Beat(0.01)
    began = time.monotonic()
    pacemaker.add(beat, began + 0.05)
    beat.wait(3)
    assert time.monotonic() - began >= 0.05
    pacemaker.remove(beat)


def test_a_beat_that_is_due_earlier_wakes_the_timing_thread() -> None:
    pacemaker, late, early = Pacemaker(), Beat(), Beat()
    pacemaker.add(late, _due_in(3600))
    pacemaker.add(early, _due_in(0.01))
    early.wait()
    assert late.calls == 0
    pacemaker.remove(late)
    pacemaker.remove(early)


def test_a_slow_beat_does_not_delay_another() -> None:
    released = threading.Event()
    pacemaker, slow, quick = Pacemaker(), Beat(during=lambda: released.wait(20)), Beat(0.005)
    pacemaker.add(slow, _due_in(0))
    slow.wait()
    pacemaker.add(quick, _due_in(0))
    quick.wait(3)
    released.set()
    for beat in (slow, quick):
        pacemaker.remove(beat)


def test_a_running_beat_is_not_called_a_second_time() -> None:
    released, together = threading.Event(), []
    inside = threading.Lock()

    def during() -> None:
        together.append(inside.acquire(blocking=False))
        released.wait(20)
        inside.release()

    pacemaker, beat = Pacemaker(), Beat(during=during)
    pacemaker.add(beat, _due_in(0))
    beat.wait()
    pacemaker.hasten(beat)
    pacemaker.hasten(beat)
    released.set()
    beat.wait()
    assert together == [True, True]
    pacemaker.remove(beat)


def test_a_hastened_beat_is_called_at_once() -> None:
    pacemaker, beat = Pacemaker(), Beat()
    pacemaker.add(beat, _due_in(3600))
    pacemaker.hasten(beat)
    beat.wait()
    pacemaker.remove(beat)


def test_a_removed_beat_is_not_called() -> None:
    pacemaker, removed, other = Pacemaker(), Beat(), Beat()
    pacemaker.add(removed, _due_in(0.05))
    pacemaker.remove(removed)
    pacemaker.hasten(removed)
    pacemaker.add(other, _due_in(0.1))
    other.wait()
    assert removed.calls == 0
    pacemaker.remove(other)


def test_a_beat_that_raises_is_logged_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    def fail_at_first() -> None:
        if beat.calls == 1:
            raise ValueError("at first")

    pacemaker, beat = Pacemaker(), Beat(during=fail_at_first)
    pacemaker.add(beat, _due_in(0))
    beat.wait(2)
    assert "at first" in caplog.text
    pacemaker.remove(beat)


def test_no_thread_is_left_a_moment_after_the_last_beat() -> None:
    threads = DaemonThreads("test-pacemaker", linger=0.01)
    pacemaker = Pacemaker(run=threads.submit)
    beat = Beat()
    pacemaker.add(beat, _due_in(0))
    beat.wait()
    pacemaker.remove(beat)
    deadline = time.monotonic() + 20
    while any(thread.name == "test-pacemaker" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = Beat()
    pacemaker.add(again, _due_in(0))
    again.wait()
    pacemaker.remove(again)


def test_runs_that_follow_each_other_share_the_timing_thread() -> None:
    threads = DaemonThreads("test-shared", linger=0.01)
    started: list[object] = []

    def run(job: Callable[[], object]) -> None:
        started.append(job)
        threads.submit(job)

    pacemaker = Pacemaker(run=run)
    for _ in range(50):
        beat = Beat()
        pacemaker.add(beat, _due_in(10))
        pacemaker.remove(beat)
    assert len(started) == 1


def test_runs_that_end_before_their_first_beat_do_not_each_wake_the_timing_thread() -> None:
    looks = threading.Semaphore(0)

    def clock() -> float:
        if threading.current_thread() is not threading.main_thread():
            looks.release()
        return time.monotonic()

    pacemaker = Pacemaker(clock=clock)
    woken = 0
    for _ in range(50):
        beat = Beat()
        pacemaker.add(beat, _due_in(0.5))
        pacemaker.remove(beat)
        # What has been woken looks at the clock within that time, if not on a machine that is busy.
        woken += looks.acquire(timeout=0.005)
    assert woken < 25


def test_a_thread_that_is_kept_from_waking_in_time_gets_the_interpreter_sooner_until_no_run_is_left() -> None:
    usual = sys.getswitchinterval()
    pacemaker, beat, other = Pacemaker(), Beat(), Beat()
    pacemaker.add(other, _due_in(3600))
    pacemaker.add(beat, _due_in(-5))
    beat.wait()
    pacemaker.remove(beat)
    assert sys.getswitchinterval() < usual
    pacemaker.remove(other)
    assert sys.getswitchinterval() == usual


def test_a_thread_that_wakes_in_time_changes_nothing() -> None:
    usual, now = sys.getswitchinterval(), time.monotonic()
    stands_still = threading.Event()
    stands_still.set()
    pacemaker = Pacemaker(clock=lambda: now if stands_still.is_set() else time.monotonic())
    beat, hastened = Beat(), Beat()
    pacemaker.add(beat, now)
    beat.wait()
    pacemaker.add(hastened, now + 3600)
    pacemaker.hasten(hastened)
    hastened.wait()
    assert sys.getswitchinterval() == usual
    pacemaker.remove(beat)
    pacemaker.remove(hastened)
    stands_still.clear()
