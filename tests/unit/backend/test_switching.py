"""The time for which a thread may keep the interpreter: shorter where asked for, and afterwards what it was."""

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
    own = 0.00005
    sys.setswitchinterval(own)
    switching = SwitchInterval()
    switching.shorten()
    shortened = sys.getswitchinterval()
    switching.restore()
    restored = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    assert [shortened, restored] == pytest.approx([own, own])
