"""Stopping synchronous code from outside, in the main thread and in others, and never a moment too late."""

import signal
import threading
import time
from collections.abc import Callable

import pytest

from wove.backend.stopping import Interruption
from wove.errors import TaskStopped


class Interrupted:
    """Runs code under an `Interruption` in the main thread or another one, and interrupts it once it runs."""

    def __init__(self, *, in_thread: bool) -> None:
        self.interruption = Interruption()
        self.running = threading.Event()
        self.raised: BaseException | None = None
        self._in_thread = in_thread

    def run(self, code: Callable[["Interrupted"], object]) -> None:
        def interrupt() -> None:
            assert self.running.wait(10)
            self.interruption.interrupt()

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        if self._in_thread:
            thread = threading.Thread(target=self._guarded, args=(code,))
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        else:
            self._guarded(code)
        interrupter.join(10)

    def _guarded(self, code: Callable[["Interrupted"], object]) -> None:
        try:
            try:
                self.interruption.begin()
                code(self)
            finally:
                self.interruption.end()
        except BaseException as error:
            self.raised = error


@pytest.fixture(params=["main thread", "other thread"])
def interrupted(request: pytest.FixtureRequest) -> Interrupted:
    return Interrupted(in_thread=request.param == "other thread")


def _spin(interrupted: Interrupted) -> None:
    interrupted.running.set()
    while True:
        pass


def test_busy_python_code_is_stopped(interrupted: Interrupted) -> None:
    interrupted.run(_spin)
    assert isinstance(interrupted.raised, TaskStopped)


def test_finally_blocks_run_and_except_exception_does_not_catch_it(interrupted: Interrupted) -> None:
    seen = []

    def code(interrupted: Interrupted) -> None:
        try:
            _spin(interrupted)
        except Exception:
            seen.append("caught")
        finally:
            seen.append("finally")

    interrupted.run(code)
    assert seen == ["finally"]
    assert isinstance(interrupted.raised, TaskStopped)


@pytest.mark.parametrize("wait", [lambda: time.sleep(30), lambda: threading.Event().wait(30)], ids=["sleep", "wait"])
def test_waiting_in_the_main_thread_ends_at_once(wait: Callable[[], object]) -> None:
    interrupted = Interrupted(in_thread=False)

    def code(interrupted: Interrupted) -> None:
        interrupted.running.set()
        wait()

    began = time.monotonic()
    interrupted.run(code)
    assert isinstance(interrupted.raised, TaskStopped)
    assert time.monotonic() - began < 10


def test_code_that_goes_on_can_be_interrupted_again(interrupted: Interrupted) -> None:
    caught: list[str] = []

    def code(interrupted: Interrupted) -> None:
        again = threading.Thread(target=interrupted.interruption.interrupt)
        try:
            _spin(interrupted)
        except TaskStopped:
            caught.append("first")
        try:
            again.start()
            _spin(interrupted)
        except TaskStopped:
            caught.append("second")

    interrupted.run(code)
    assert caught == ["first", "second"]
    assert interrupted.raised is None


def test_a_task_that_is_spared_is_not_interrupted(interrupted: Interrupted) -> None:
    def code(interrupted: Interrupted) -> None:
        interrupted.interruption.spare()
        interrupter = threading.Thread(target=interrupted.interruption.interrupt)
        interrupter.start()
        interrupter.join()
        interrupted.running.set()

    interrupted.run(code)
    assert interrupted.raised is None


def test_before_the_beginning_and_after_the_end_an_interruption_does_nothing() -> None:
    interruption = Interruption()
    interruption.interrupt()
    interruption.begin()
    interruption.end()
    interruption.interrupt()
    interruption.end()


def test_an_interruption_that_arrives_at_the_very_end_never_gets_out() -> None:
    escaped = []

    def work() -> None:
        for _ in range(300):
            interruption = Interruption()
            begun = threading.Event()

            def interrupt(interruption: Interruption = interruption, begun: threading.Event = begun) -> None:
                begun.wait(10)
                interruption.interrupt()

            other = threading.Thread(target=interrupt)
            other.start()
            try:
                try:
                    interruption.begin()
                    begun.set()
                finally:
                    interruption.end()
            except TaskStopped:
                pass
            try:
                other.join(10)
            except TaskStopped as error:
                escaped.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    work()
    assert not worker.is_alive()
    assert escaped == []


def test_the_process_s_own_handler_is_given_back_and_called_for_other_signals() -> None:
    calls = []
    previous = signal.signal(signal.SIGURG, lambda number, frame: calls.append(number))
    try:
        own = signal.getsignal(signal.SIGURG)
        interruption = Interruption()
        interruption.begin()
        assert signal.getsignal(signal.SIGURG) is not own
        signal.raise_signal(signal.SIGURG)
        assert calls == [signal.SIGURG]
        interruption.end()
        assert signal.getsignal(signal.SIGURG) is own
    finally:
        signal.signal(signal.SIGURG, previous)
