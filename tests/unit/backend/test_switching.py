"""The time for which a thread may keep the interpreter: shorter where asked for, and afterwards what it was."""

import os
import sys
from collections.abc import Iterator

import pytest

from wove.backend.switching import SwitchInterval

USUAL = 0.005


@pytest.fixture(autouse=True)
def _usual_afterwards() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    found = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert found == USUAL


def test_a_shortened_interval_is_restored() -> None:
    switching = SwitchInterval()
    switching.shorten()
    assert sys.getswitchinterval() < 0.001
    switching.restore()


def test_shortening_twice_and_restoring_twice_is_as_good_as_once() -> None:
    switching = SwitchInterval()
    switching.shorten()
    switching.shorten()
    switching.restore()
    switching.restore()


def test_nothing_is_restored_that_was_not_changed() -> None:
    SwitchInterval().restore()


def test_an_interval_that_the_process_has_made_shorter_itself_stays() -> None:
    assert _after_a_process_sets(0.00005, first=True) == pytest.approx(0.00005)


def test_an_interval_that_a_task_has_set_meanwhile_stays() -> None:
    assert _after_a_process_sets(0.002, first=False) == pytest.approx(0.002)


def _after_a_process_sets(own: float, *, first: bool) -> float:
    switching = SwitchInterval()
    if first:
        sys.setswitchinterval(own)
    switching.shorten()
    if not first:
        sys.setswitchinterval(own)
    switching.restore()
    found = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    return found


def test_a_forked_child_has_the_interval_that_its_parent_had_before() -> None:
    switching = SwitchInterval()
    switching.shorten()
    child = os.fork()
    if child == 0:
        os._exit(0 if sys.getswitchinterval() == USUAL else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sys.getswitchinterval() < USUAL
    switching.restore()
