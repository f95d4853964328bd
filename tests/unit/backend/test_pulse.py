"""The thread that beats for the runs of a worker process."""

import sys
import threading
import time

from tests.support.stdio import until
from wove.backend.pulse import Pulse


class Recorded:
    """A started pulse, what it did, and whether anything is being executed."""

    def __init__(self) -> None:
        self.beats: list[str] = []
        self.ticks = 0
        self.busy = False
        self.pulse = Pulse(beat=self.beats.append, tick=self._tick, busy=lambda: self.busy)
        self.pulse.start()

    def _tick(self) -> None:
        self.ticks += 1

    def rest(self) -> None:
        """Wait until the pulse has nothing to do."""

        def still() -> bool:
            before = self.ticks
            time.sleep(0.1)
            return self.ticks == before

        until(still)


def test_a_run_beats_at_its_interval_until_it_ends() -> None:
    at = Recorded()
    at.pulse.begin("a", 0.02)
    until(lambda: len(at.beats) >= 5)
    at.pulse.end("a")
    time.sleep(0.03)
    count = len(at.beats)
    time.sleep(0.1)
    assert len(at.beats) == count


def test_runs_beat_on_their_own() -> None:
    at = Recorded()
    at.pulse.begin("fast", 0.01)
    at.pulse.begin("slow", 0.1)
    until(lambda: at.beats.count("slow") >= 3)
    assert at.beats.count("fast") > 2 * at.beats.count("slow")


def test_a_run_without_an_interval_never_beats() -> None:
    at = Recorded()
    at.pulse.begin("a", None)
    until(lambda: at.ticks > 5)
    assert at.beats == []


def test_nothing_ticks_while_nothing_runs() -> None:
    at = Recorded()
    at.pulse.begin("a", None)
    at.pulse.end("a")
    at.rest()


def test_a_run_wakes_the_pulse_from_its_rest() -> None:
    at = Recorded()
    at.rest()
    before = at.ticks
    at.pulse.begin("a", None)
    until(lambda: at.ticks > before + 3)


def test_a_beat_that_is_due_wakes_the_pulse_from_its_rest() -> None:
    at = Recorded()
    at.rest()
    at.pulse.begin("a", 0.3)
    until(lambda: at.beats == ["a"])


def test_ticks_go_on_while_something_is_executed() -> None:
    at = Recorded()
    at.busy = True
    time.sleep(0.3)
    before = at.ticks
    until(lambda: at.ticks > before + 2)
    at.busy = False


def test_runs_may_begin_and_end_on_many_threads() -> None:
    at = Recorded()

    def work(name: str) -> None:
        for _ in range(200):
            at.pulse.begin(name, 0.001)
            at.pulse.end(name)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at.rest()


def test_a_pulse_that_a_task_keeps_from_the_interpreter_gets_it_sooner_until_nothing_runs() -> None:
    usual, at = sys.getswitchinterval(), Recorded()
    at.busy = True
    at.pulse.begin("a", None)
    calls = 1_000_000
    while sys.getswitchinterval() == usual:
        sum(range(calls))  # It never lets go of the interpreter.
        calls *= 2
    at.busy = False
    until(lambda: sys.getswitchinterval() == usual)
