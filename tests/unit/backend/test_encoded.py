"""A base64 text as a file: the same bytes, however they are read."""

import base64
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove.backend.encoded import EncodedFile
from wove.serialization import dumps, loads


def encoded(data: bytes) -> EncodedFile:
    return EncodedFile(memoryview(base64.b64encode(data)))


@pytest.fixture(scope="module")
def large() -> bytes:
    return bytes(range(256)) * 4096 + b"tail\n"


@given(st.data())
def test_any_order_of_reads_gives_the_bytes_in_order(large: bytes, data: st.DataObject) -> None:
    file, at = encoded(large), 0
    for size in data.draw(st.lists(st.integers(0, 400_000), max_size=5)):
        if data.draw(st.booleans()):
            found = file.read(size)
        else:
            buffer = bytearray(size)
            found = bytes(buffer[: file.readinto(memoryview(buffer))])
        assert found == large[at : at + size]
        at += len(found)


def test_lines_end_with_their_line_feed(large: bytes) -> None:
    file = encoded(b"one\ntwo")
    assert [file.readline(), file.readline(), file.readline()] == [b"one\n", b"two", b""]


@pytest.mark.parametrize("value", [b"x" * 3_000_000, ["text"] * 50_000, {1: {2: bytearray(2_000_000)}}, "ü" * 900_000])
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_rebuilt_from_it(value: Any, protocol: int) -> None:
    assert loads(encoded(pickle.dumps(value, protocol)), what="it") == value


@pytest.mark.parametrize("text", [b"?" * 400_000, b"A" * 399_999, b"A" * 300_000 + b"\n" + b"A" * 100_000])
def test_text_that_is_not_base64_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"base64|padding"):
        EncodedFile(memoryview(text)).read(1_000_000)


def test_other_threads_run_while_a_large_value_is_rebuilt() -> None:
    file = encoded(dumps([{"number": number} for number in range(400_000)], what="it"))
    finished = threading.Event()
    turns = 0

    def count() -> None:
        nonlocal turns
        while not finished.wait(0.001):
            turns += 1

    thread = threading.Thread(target=count)
    thread.start()
    loads(file, what="it")
    finished.set()
    thread.join()
    assert turns >= 5
