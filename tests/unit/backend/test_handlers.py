"""Signal handlers are read and set as with the standard library's module."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from wove.backend.handlers import Handler, handler_of, set_handler


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGURG)
    yield
    signal.signal(signal.SIGURG, before)


def ours(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


@pytest.mark.parametrize("handler", [ours, signal.SIG_DFL, signal.SIG_IGN])
def test_what_is_set_here_is_what_the_standard_library_reads(handler: Handler) -> None:
    set_handler(signal.SIGURG, handler)
    assert signal.getsignal(signal.SIGURG) == handler


@pytest.mark.parametrize("handler", [ours, signal.SIG_DFL, signal.SIG_IGN])
def test_what_the_standard_library_has_set_is_read_here_and_can_be_set_again(handler: Handler) -> None:
    signal.signal(signal.SIGURG, handler)
    found = handler_of(signal.SIGURG)
    assert found == handler
    set_handler(signal.SIGURG, found)
    assert signal.getsignal(signal.SIGURG) == handler


def test_a_handler_gets_its_signal() -> None:
    got: list[int] = []
    set_handler(signal.SIGURG, lambda number, frame: got.append(number))
    signal.raise_signal(signal.SIGURG)
    assert got == [signal.SIGURG]


def test_another_thread_cannot_set_a_handler() -> None:
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            set_handler(signal.SIGURG, ours)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(errors) == 1
