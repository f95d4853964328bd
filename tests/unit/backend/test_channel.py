"""The worker's end of the pipes, without a process around it."""

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from wove.backend.channel import Channel
from wove.backend.framing import Frame, FrameDecoder, hello_line, pack
from wove.backend.stdio_codec import unpack_event
from wove.backend.types import EventFrame


class Owner:
    """The other end of a channel's pipes."""

    def __init__(self, *, framed: bool) -> None:
        source, self._commands = os.pipe()
        self._events, target = os.pipe()
        self._descriptors = [source, target, self._commands, self._events]
        self.channel = Channel(source, target, framed=framed)

    def send(self, data: bytes) -> None:
        os.write(self._commands, data)

    def hang_up(self) -> None:
        self._descriptors.remove(self._commands)
        os.close(self._commands)

    def stop_reading(self) -> None:
        self._descriptors.remove(self._events)
        os.close(self._events)

    def read(self) -> bytes:
        return os.read(self._events, 1 << 20)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().splitlines()]

    def frames(self) -> list[dict[str, Any]]:
        decoder = FrameDecoder(self.read())
        decoder.received(0)
        return [unpack_event(frame) for frame in iter(decoder.take, None)]

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def owner(*, framed: bool) -> Iterator[Owner]:
    made = Owner(framed=framed)
    yield made
    made.close()


@pytest.fixture
def plain() -> Iterator[Owner]:
    yield from owner(framed=False)


@pytest.fixture
def framed() -> Iterator[Owner]:
    for made in owner(framed=True):
        assert made.read() == b"\n" + hello_line()
        yield made


RESULT: EventFrame = {"type": "task_result", "run_id": "a", "task_id": "t", "result": {1, 2}}
LOG: EventFrame = {"type": "log", "run_id": "a", "task_id": "t", "message": "hm", "level": 30}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_an_owner_that_knows_frames_is_greeted() -> None:
    for made in owner(framed=True):
        assert made.read() == b"\n" + hello_line()


def test_another_owner_is_not_greeted(plain: Owner) -> None:
    plain.channel.post(RESULT)
    assert kinds(plain.lines()) == ["task_result"]


def test_a_start_can_be_told_with_the_result(plain: Owner, framed: Owner) -> None:
    plain.channel.post(RESULT, started=True)
    assert kinds(plain.lines()) == ["task_started", "task_result"]
    framed.channel.post(RESULT, started=True)
    assert framed.frames() == [{**RESULT, "started": True}]


def test_what_is_posted_for_later_leaves_with_the_next_event_and_before_it(plain: Owner, framed: Owner) -> None:
    for made in (plain, framed):
        made.channel.post_soon(LOG)
        made.channel.post(RESULT)
    assert kinds(plain.lines()) == kinds(framed.frames()) == ["log", "task_result"]


def test_what_is_posted_for_later_can_be_flushed(plain: Owner, framed: Owner) -> None:
    for made in (plain, framed):
        made.channel.post_soon(LOG)
        made.channel.post_soon(LOG)
        made.channel.flush()
        made.channel.flush()
    assert kinds(plain.lines()) == kinds(framed.frames()) == ["log", "log"]


def test_a_result_that_cannot_travel_becomes_an_error(plain: Owner, framed: Owner) -> None:
    for made in (plain, framed):
        made.channel.post({**RESULT, "result": threading.Lock()}, started=True)
    (_, line), (frame,) = plain.lines(), framed.frames()
    assert line["type"] == frame["type"] == "task_error"
    assert "lock" in line["error"]["message"]
    assert "lock" in frame["error"]["message"]


def test_events_of_many_threads_do_not_mix(framed: Owner) -> None:
    def post(number: int) -> None:
        for _ in range(20):
            framed.channel.post({**RESULT, "result": str(number) * 1000})

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    decoder = FrameDecoder()
    results: list[str] = []
    while len(results) < 80:
        data = framed.read()
        while data:
            buffer = decoder.buffer()
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            decoder.received(count)
            results += [unpack_event(frame)["result"] for frame in iter(decoder.take, None)]
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([str(number) * 1000 for number in range(4)] * 20)


def test_commands_come_as_lines(plain: Owner) -> None:
    plain.send(b'{"type": "shutdown"}\nhalf')
    received = plain.channel.receive()
    assert received is not None
    assert list(received) == [b'{"type": "shutdown"}']


def test_commands_come_as_frames_after_a_hello(framed: Owner) -> None:
    framed.send(b"line\n" + hello_line(threads=2) + b"".join(pack({"type": "run_task"}, [b"body"])))
    received = framed.channel.receive()
    assert received is not None
    line, hello, frame = received
    assert line == b"line"
    assert isinstance(hello, Frame)
    assert hello.head["threads"] == 2
    assert frame == Frame({"type": "run_task"}, b"body")


def test_the_end_of_the_owner_is_the_end_of_the_commands(plain: Owner) -> None:
    plain.hang_up()
    assert plain.channel.receive() is None


def test_posting_to_an_owner_that_has_gone_does_nothing(plain: Owner) -> None:
    plain.stop_reading()
    plain.channel.post(RESULT)


def test_waiting_tells_whether_there_is_something_to_read(plain: Owner) -> None:
    assert not plain.channel.wait(0.001)
    plain.send(b"\n")
    assert plain.channel.wait(1.0)
