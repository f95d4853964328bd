"""One running worker process: the framing on its pipes, and its end."""

import asyncio
import logging
import os
import signal
import weakref
from collections.abc import Callable, Mapping, Sequence

from wove.backend.framing import Frame, FrameDecoder, LineDecoder, hello_line, read_hello
from wove.environment.pipe_writer import PipeWriter
from wove.environment.worker_command import PIPE_BYTES, StartedWorker, WorkerExit
from wove.environment.worker_stderr import WorkerStderr

# How long a worker may take to go when it is told to, or when it has stopped listening or talking.
SECONDS_TO_GO = 1.0
_POLL_SECONDS = 0.1

_log = logging.getLogger("wove.environment")


class WorkerProcess:
    """A running worker process on the background loop; the callbacks are called there, too, and must not raise.

    Args:
        started: the process, as the leader of a session, and its pipes.
        settings: what Wove's own worker is told when it says hello.
        greet: the process is Wove's own worker for sure, so frames need not wait for its hello.
        on_frame: called with each frame of Wove's own framing.
        on_line: called with each line of a worker that speaks JSON lines.
        on_writable: called when everything that was written has left.
        on_exit: called once, when the process has ended and everything that it wrote has been read.
    """

    def __init__(
        self,
        started: StartedWorker,
        *,
        settings: Mapping[str, object],
        greet: bool,
        on_frame: Callable[[Frame], None],
        on_line: Callable[[bytes], None],
        on_writable: Callable[[], None],
        on_exit: Callable[[WorkerExit], None],
    ) -> None:
        self.pid = started.process.pid
        self.speaks_frames = False
        self._process = started.process
        self._settings = settings
        self._on_frame = on_frame
        self._on_line = on_line
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._decoder: LineDecoder | FrameDecoder = LineDecoder()
        self._was_ready = False
        self._broken: str | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stdout = started.stdout
        self._writer = PipeWriter(started.stdin, on_empty=on_writable, on_closed=self._gave_up)
        self._stderr = WorkerStderr(started.stderr)
        os.set_blocking(self._stdout, False)
        self._loop.add_reader(self._stdout, self._readable)
        self._pidfd = self._watch()
        self._descriptors = [fd for fd in (started.stdout, started.stderr, self._pidfd) if fd is not None]
        self._ended = asyncio.Event()
        _running.add(self)
        if greet:
            self._speak_frames()

    @property
    def unsent(self) -> int:
        """Bytes that the process has not taken yet."""
        return self._writer.unsent

    def write(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Write buffers one after the other, later where the process does not take them now.

        Returns:
            How many bytes the process has to read until it knows all of them.
        """
        self._writer.write(buffers)
        return self._writer.position

    def note(self, text: str) -> None:
        """Remember a line for the report of the process's end, as if it had come through stderr."""
        self._stderr.keep(text)

    def kill(self) -> None:
        """End the process and the children that it has started, at once."""
        if self._process.returncode is None:
            try:
                # The worker leads a session of its own, so its pid is that of its group.
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
            except PermissionError:
                _log.warning("The worker process %d belongs to somebody else and cannot be ended.", self.pid)

    async def close(self) -> None:
        """Tell the process to go by closing its stdin; kill it if it has not gone within a second."""
        self._writer.close()
        if not await self._ends_soon():
            self.kill()
            if not await self._ends_soon():
                _log.warning("The worker process %d does not end.", self.pid)

    async def _ends_soon(self) -> bool:
        try:
            async with asyncio.timeout(SECONDS_TO_GO):
                return await self._ended.wait()
        except TimeoutError:
            return False

    def forget(self) -> None:
        """Let go of the process in a forked child; the parent goes on using it."""
        self._writer.forget()
        self._close_descriptors()
        self._process.returncode = 0  # It is no child of this process, so nobody here must wait for it.

    def _speak_frames(self) -> None:
        self.speaks_frames = True
        self._writer.write([hello_line(**self._settings)])

    def _gave_up(self) -> None:
        """End a process that has closed its stdin or stdout: no task can come back from it any more."""
        self._writer.close()
        self._loop.call_later(SECONDS_TO_GO, self.kill)

    def _readable(self) -> None:
        if self._read() == 0 and self._ending is None:
            self._loop.remove_reader(self._stdout)
            self._gave_up()

    def _read(self) -> int | None:
        """Read what is there: how many bytes, 0 at the end of the stream, None if there is nothing now."""
        try:
            count = os.readv(self._stdout, [self._decoder.buffer()])
        except BlockingIOError:
            return None
        try:
            self._decode(count)
        except Exception as error:  # Bytes that are no frame can make the unpickler raise anything.
            self._broken = f"its output cannot be understood ({error})"
            self.kill()
            return 0
        return count

    def _decode(self, count: int) -> None:
        self._was_ready = self._was_ready or count > 0
        self._decoder.received(count)
        if isinstance(self._decoder, LineDecoder):
            self._take_lines(self._decoder)
        if isinstance(self._decoder, FrameDecoder):
            while (frame := self._decoder.take()) is not None:
                self._on_frame(frame)

    def _take_lines(self, decoder: LineDecoder) -> None:
        while (line := decoder.take()) is not None:
            if read_hello(line) is None:
                self._on_line(line)
                continue
            self._decoder = FrameDecoder(decoder.rest(), keep=False)
            if not self.speaks_frames:
                self._speak_frames()
            return

    def _watch(self) -> int | None:
        """Arrange for `_ends` to be called when the process has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # Not Linux, or an old kernel.
            self._loop.call_later(_POLL_SECONDS, self._poll)
            return None
        self._loop.add_reader(pidfd, self._ends)
        return pidfd

    def _poll(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self._ends()

    def _ends(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self._ending = asyncio.ensure_future(self._end())

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    async def _end(self) -> None:
        self._loop.remove_reader(self._stdout)
        # What the process wrote before it ended still lies in the pipe; a child that has inherited it may write on.
        left = PIPE_BYTES
        while left > 0 and (count := self._read()):
            left -= count
        code = self._process.wait()
        self._writer.close()
        received = self._writer.received
        await self._stderr.close()
        self._close_descriptors()
        _running.discard(self)
        self._ended.set()
        self._on_exit(WorkerExit(self.pid, code, self._stderr.tail(), self._was_ready, received, self._broken))


_running: "weakref.WeakSet[WorkerProcess]" = weakref.WeakSet()


def _forget_all() -> None:
    # A copy of the pipe in a forked child would keep the worker alive after its owner has ended.
    for worker in list(_running):
        worker.forget()
    _running.clear()


os.register_at_fork(after_in_child=_forget_all)
