"""Reading an HTTP answer: every framing that a proxy may choose, and nothing that is not HTTP."""

import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove.backend.answers import Answer, read_answer


class Wire:
    """A pair of connected sockets: the test plays the server."""

    def __init__(self) -> None:
        self.server, self.client = socket.socketpair()

    def read(
        self, data: bytes, *, close: bool = False, method: str = "POST", longest: int = 100
    ) -> tuple[Answer, bool]:
        self.server.sendall(data)
        if close:
            self.server.shutdown(socket.SHUT_WR)
        return read_answer(self.client, method=method, deadline=time.monotonic() + 5, longest=longest)

    def close(self) -> None:
        self.server.close()
        self.client.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def test_an_answer_with_a_length_leaves_the_connection_to_the_next_one(wire: Wire) -> None:
    answer, reusable = wire.read(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Kind:  plain \r\n\r\nbody")
    assert answer == Answer(200, {"content-length": "4", "x-kind": "plain"}, b"body")
    assert reusable


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_is_complete_after_its_head(wire: Wire, status: int) -> None:
    answer, reusable = wire.read(b"HTTP/1.1 %d No Body\r\n\r\n" % status)
    assert (answer.status, answer.body, reusable) == (status, b"", True)


def test_the_answer_to_a_head_request_has_no_body(wire: Wire) -> None:
    answer, reusable = wire.read(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", method="HEAD")
    assert (answer.body, reusable) == (b"", True)


def test_a_status_needs_no_words(wire: Wire) -> None:
    assert wire.read(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")[0].status == 200


def test_an_announcement_is_skipped(wire: Wire) -> None:
    announced = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert wire.read(announced + b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")[0].status == 413


def test_chunks_are_put_together(wire: Wire) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nbod\r\n1;extra=1\r\ny\r\n0\r\nTrailer: x\r\n\r\n"
    answer, reusable = wire.read(data)
    assert (answer.body, reusable) == (b"body", True)


def test_a_body_may_end_with_the_connection(wire: Wire) -> None:
    answer, reusable = wire.read(b"HTTP/1.1 200 OK\r\n\r\nbody", close=True)
    assert (answer.body, reusable) == (b"body", False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus",
    ],
    ids=["asked for", "old", "surplus"],
)
def test_a_connection_that_cannot_carry_another_answer_is_told_from_one_that_can(wire: Wire, data: bytes) -> None:
    assert wire.read(data)[1] is False


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 16 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"x" * 70_000,
    ],
    ids=lambda data: data[:60].decode(),
)
def test_what_is_not_http_is_a_connection_error(wire: Wire, data: bytes) -> None:
    with pytest.raises(ConnectionError, match="not HTTP"):
        wire.read(data, close=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbod",
    ],
    ids=["nothing", "head", "body", "chunk"],
)
def test_an_answer_that_is_cut_off_is_a_connection_error(wire: Wire, data: bytes) -> None:
    with pytest.raises(ConnectionError, match="before"):
        wire.read(data, close=True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
    ],
    ids=["length", "chunked", "until closed"],
)
def test_an_answer_that_is_too_long_is_not_read(wire: Wire, data: bytes) -> None:
    with pytest.raises(ConnectionError, match="longer than 100 bytes"):
        wire.read(data, close=True)


def test_an_answer_that_does_not_come_is_a_timeout(wire: Wire) -> None:
    with pytest.raises(TimeoutError):
        read_answer(wire.client, method="POST", deadline=time.monotonic() + 0.02, longest=100)
    with pytest.raises(TimeoutError):
        read_answer(wire.client, method="POST", deadline=time.monotonic() - 1, longest=100)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_lead_to_another_error(data: bytes) -> None:
    wire = Wire()
    try:
        wire.read(data, close=True)
    except ConnectionError:
        pass
    finally:
        wire.close()


@given(st.text(st.sampled_from("HTTP/1. 20\r\n:-abcontentlgthrsfdk"), max_size=120))
def test_nothing_that_looks_like_http_leads_to_another_error(text: str) -> None:
    wire = Wire()
    try:
        wire.read(b"HTTP/1.1 200 OK\r\n" + text.encode(), close=True)
    except ConnectionError:
        pass
    finally:
        wire.close()
