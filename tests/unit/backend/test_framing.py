"""Splitting streams into lines and frames, whatever the sizes of the reads."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wove.backend import framing
from wove.backend.framing import Frame, FrameDecoder, LineDecoder, hello_line, pack, read_hello, remaining

Decoder = LineDecoder | FrameDecoder


def feed(decoder: Decoder, data: bytes, sizes: Iterator[int]) -> list[bytes | Frame]:
    """Give a decoder the bytes in reads of the given sizes and return what it makes of them."""
    taken: list[bytes | Frame] = []
    while data:
        buffer = decoder.buffer()
        count = min(next(sizes), len(buffer), len(data))
        buffer[:count] = data[:count]
        data = data[count:]
        decoder.received(count)
        while (item := decoder.take()) is not None:
            # A body may be valid until the next one only.
            taken.append(Frame(item.head, bytes(item.body)) if isinstance(item, Frame) else item)
    return taken


def forever(sizes: list[int]) -> Iterator[int]:
    while True:
        yield from sizes


def same(count: int) -> Iterator[int]:
    return forever([count])


def contents(frames: list[bytes | Frame]) -> list[tuple[dict[str, object], bytes]]:
    return [(frame.head, bytes(frame.body)) for frame in frames if isinstance(frame, Frame)]


sizes = st.lists(st.sampled_from([1000, 40_001, 65_535, 65_536, 200_000]), min_size=1, max_size=5)


# A shared machine may be slow at any moment.
@settings(deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 100, 65_000, 65_536, 150_000]), max_size=4),
    sizes=sizes,
    keep=st.booleans(),
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(lengths: list[int], sizes: list[int], keep: bool) -> None:
    bodies = [b"x" * length for length in lengths]
    stream = b"".join(b"".join(pack({"number": number}, [body])) for number, body in enumerate(bodies))
    frames = feed(FrameDecoder(keep=keep), stream, forever(sizes))
    assert contents(frames) == [({"number": number}, body) for number, body in enumerate(bodies)]


@pytest.mark.parametrize("keep", [True, False])
def test_a_frame_may_be_larger_than_any_buffer(keep: bool) -> None:
    bodies = [b"x" * 5_000_000, b"y", b"z" * 5_000_000]
    stream = b"".join(b"".join(pack({}, [body])) for body in bodies)
    assert contents(feed(FrameDecoder(keep=keep), stream, same(1_000_000))) == [({}, body) for body in bodies]


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line), max_size=8),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
)
def test_lines_come_out_as_they_went_in_however_they_are_cut(lines: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    assert feed(LineDecoder(), stream, forever(sizes)) == lines


def test_a_line_may_be_longer_than_any_buffer() -> None:
    line = b"x" * 1_000_000
    assert feed(LineDecoder(), line + b"\nnext\n", same(65_536)) == [line, b"next"]


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_LINE", 1000)
    with pytest.raises(ValueError, match="longer than 1,000 bytes"):
        feed(LineDecoder(), b"x" * 2000, same(500))


def test_a_body_of_many_pieces_is_one_body() -> None:
    pieces = [b"x" * 30_000] * 40
    assert contents(feed(FrameDecoder(), b"".join(pack({}, pieces)), same(65_536))) == [({}, b"".join(pieces))]


def test_a_frame_has_few_buffers_however_many_pieces_its_body_has() -> None:
    assert len(pack({}, [b"x" * 10_000] * 2000)) < 20


def test_a_large_piece_is_not_copied() -> None:
    large = bytes(100_000)
    assert any(buffer is large for buffer in pack({}, [b"start", large, b"end"]))


def one_frame(decoder: FrameDecoder, body: bytes) -> Frame:
    """Send one frame through a decoder."""
    data = b"".join(pack({}, [body]))
    while data:
        buffer = decoder.buffer()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        data = data[count:]
        decoder.received(count)
        if (frame := decoder.take()) is not None:
            return frame
    raise AssertionError("There was no frame.")


@pytest.mark.parametrize("size", [100, 500_000, 5_000_000])
def test_bodies_can_be_kept_while_others_come(size: int) -> None:
    decoder = FrameDecoder()
    first = one_frame(decoder, b"x" * size)
    one_frame(decoder, b"y" * size)
    assert first.body == b"x" * size


@pytest.mark.parametrize(("keep", "size"), [(True, 500_000), (False, 100), (False, 500_000), (False, 5_000_000)])
def test_a_body_is_not_copied_where_that_can_be_spared(keep: bool, size: int) -> None:
    assert isinstance(one_frame(FrameDecoder(keep=keep), b"x" * size).body, memoryview)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        feed(FrameDecoder(), b"Hello, this is a print that went astray.\n", same(100))


def test_frames_that_follow_a_line_in_the_same_read_are_not_lost() -> None:
    decoder = LineDecoder()
    data = b"first\n" + b"".join(pack({"a": 1}, [b"x\ny"])) + b"".join(pack({"b": 2}))
    decoder.buffer()[: len(data)] = data
    decoder.received(len(data))
    assert decoder.take() == b"first"
    frames = FrameDecoder(decoder.rest())
    assert [frames.take(), frames.take(), frames.take()] == [Frame({"a": 1}, b"x\ny"), Frame({"b": 2}, b""), None]


def test_a_hello_carries_its_settings() -> None:
    hello = read_hello(hello_line(threads=3).rstrip(b"\n"))
    assert hello is not None
    assert hello["threads"] == 3


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "task_result", "run_id": "a", "result": "wove-1"}',
        b'{"type": "hello", "framing": "wove-2"}',
        b'"wove-1"',
        b"wove-1",
        b"",
    ],
)
def test_another_line_is_no_hello(line: bytes) -> None:
    assert read_hello(line) is None


@settings(deadline=None)
@given(buffers=st.lists(st.binary(max_size=20), max_size=6), written=st.integers(0, 150))
def test_what_remains_of_buffers_is_their_end(buffers: list[bytes], written: int) -> None:
    whole = b"".join(buffers)
    assert b"".join(remaining(buffers, min(written, len(whole)))) == whole[written:]


@pytest.mark.parametrize("decoder", [FrameDecoder, LineDecoder])
def test_there_is_always_room_for_the_next_bytes(decoder: Callable[[], Decoder]) -> None:
    splitter = decoder()
    stream = b"".join(pack({"n": 1}, [b"x" * 60_000])) * 3 if decoder is FrameDecoder else b"y" * 200_000
    for start in range(0, len(stream), 7000):
        assert len(splitter.buffer()) >= 1
        feed(splitter, stream[start : start + 7000], same(7000))
