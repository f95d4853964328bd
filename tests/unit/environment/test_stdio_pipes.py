"""Pipes to and from a worker process: writing without waiting, stderr, and how a process ended."""

import asyncio
import os
import signal

import pytest

from tests.support.stdio import until
from wove.environment.pipe_writer import PipeWriter
from wove.environment.worker_command import WorkerCommand, WorkerExit
from wove.environment.worker_stderr import WorkerStderr


class Pipe:
    """A pipe with a writer on the running loop."""

    def __init__(self) -> None:
        self.source, target = os.pipe()
        self.emptied = 0
        self.closed = 0
        self.writer = PipeWriter(target, on_empty=self._empty, on_closed=self._close)

    def _empty(self) -> None:
        self.emptied += 1

    def _close(self) -> None:
        self.closed += 1

    def read(self, size: int = 1 << 20) -> bytes:
        return os.read(self.source, size)

    def finish(self) -> None:
        self.writer.close()
        os.close(self.source)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_fits_is_written_at_once() -> None:
    pipe = Pipe()
    pipe.writer.write([b"a", b"b"])
    assert pipe.read() == b"ab"
    pipe.finish()


async def test_what_follows_in_the_same_turn_is_written_at_its_end() -> None:
    pipe = Pipe()
    for part in (b"a", b"b", b"c"):
        pipe.writer.write([part])
    assert pipe.read() == b"a"
    await settle()
    assert pipe.read() == b"bc"
    pipe.finish()


async def test_what_does_not_fit_is_written_when_there_is_room() -> None:
    pipe = Pipe()
    data = os.urandom(3_000_000)
    pipe.writer.write([data[:1_000_000], data[1_000_000:]])
    pipe.writer.write([b"end"])
    assert pipe.writer.unsent > 2_000_000
    read = b""
    while len(read) < len(data) + 3:
        read += await asyncio.to_thread(pipe.read)
    assert read == data + b"end"
    assert (pipe.writer.unsent, pipe.emptied) == (0, 1)
    pipe.finish()


async def test_it_is_known_how_much_the_reader_has_read() -> None:
    pipe = Pipe()
    pipe.writer.write([b"x" * 100])
    pipe.read(30)
    assert (pipe.writer.position, pipe.writer.received) == (100, 30)
    pipe.writer.close()
    assert pipe.writer.received == 30
    os.close(pipe.source)


async def test_what_was_written_when_the_reader_had_gone_was_not_read() -> None:
    pipe = Pipe()
    pipe.writer.write([b"x" * 100])
    await settle()
    pipe.read(30)
    os.close(pipe.source)
    pipe.writer.write([b"y" * 50])
    assert (pipe.writer.position, pipe.writer.received) == (150, 30)
    assert (pipe.writer.closed, pipe.closed) == (True, 1)


async def test_what_is_written_into_a_closed_pipe_is_never_read() -> None:
    pipe = Pipe()
    pipe.writer.close()
    pipe.writer.write([b"x"])
    pipe.writer.close()
    assert (pipe.writer.position, pipe.writer.received) == (1, 0)
    os.close(pipe.source)


async def test_stderr_is_passed_on_and_its_last_lines_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    source, target = os.pipe()
    stderr = WorkerStderr(source)
    os.write(target, b"".join(b"line %d\n" % number for number in range(100)) + b"half \xc3")
    os.write(target, b"\xa9 line")
    await stderr.close()
    tail = stderr.tail().splitlines()
    assert tail[-2:] == ["line 99", "half é line"]
    assert len(tail) == 21
    assert capsys.readouterr().err.startswith("line 0\nline 1\n")
    os.close(source)
    os.close(target)


async def test_stderr_that_nobody_reads_blocks_the_worker_and_not_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    stuck = threading.Event()

    class Terminal:
        def write(self, text: str) -> None:
            stuck.wait(10)

        def flush(self) -> None: ...

    monkeypatch.setattr("sys.stderr", Terminal())
    source, target = os.pipe()
    stderr = WorkerStderr(source)
    os.write(target, b"first\n")
    await asyncio.sleep(0.05)
    os.write(target, b"second\n")
    await asyncio.sleep(0.05)
    assert stderr.tail() == "first"
    stuck.set()
    await stderr.close()
    assert stderr.tail() == "first\nsecond"
    os.close(source)
    os.close(target)


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exited with code 3"), (-signal.SIGSEGV, "SIGSEGV"), (-40, "SIGRTMIN"), (-36, "signal 36")],
)
def test_an_exit_is_described(code: int, words: str) -> None:
    if code == -40:
        code = -int(signal.SIGRTMIN)
    assert words in str(WorkerExit(1, code, "", was_ready=True, received=0))


def test_a_crash_in_native_code_says_how_to_find_it() -> None:
    assert "PYTHONFAULTHANDLER" in WorkerExit(1, -signal.SIGSEGV, "", was_ready=True, received=0).advice()


def test_a_program_that_cannot_be_started_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        WorkerCommand(("no-such-program",)).start()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_started_program_can_be_discarded() -> None:
    before = len(os.listdir("/proc/self/fd"))
    started = WorkerCommand(("sleep", "60")).start()
    started.discard()
    assert started.process.returncode == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before
    until(lambda: not os.path.exists(f"/proc/{started.process.pid}"))
