"""What is started as a worker process, and how such a process ended."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from wove.backend.framing import FRAMING, FRAMING_VARIABLE

_OWN_MODULE = "wove.stdio_worker"

# Linux's default is 64 KiB, which makes 20 MB cost 300 wake-ups of each side.
PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """What is started as a worker process.

    Attributes:
        argv: the program and its arguments; None for Wove's own worker.
        env: variables on top of this process's own.
        cwd: its working directory; None for this process's.
    """

    argv: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str | None = None

    def __str__(self) -> str:
        return shlex.join(self.argv) if self.argv else f"python -m {_OWN_MODULE}"

    def start(self) -> "StartedWorker":
        """Start the process. Takes a few milliseconds.

        Raises:
            OSError: the program or the directory does not exist or may not be used.
        """
        fds: list[int] = []
        try:
            for _ in range(3):
                fds += os.pipe()
            child_in, own_in, own_out, child_out, own_err, child_err = fds
            process = subprocess.Popen(
                self.argv or (sys.executable, "-m", _OWN_MODULE),
                stdin=child_in,
                stdout=child_out,
                stderr=child_err,
                cwd=self.cwd,
                env={**os.environ, FRAMING_VARIABLE: FRAMING, **dict(self.env)},
                # A session of its own: Ctrl-C in a terminal is for the weave; killing reaches the worker's children.
                start_new_session=True,
            )
        except BaseException:
            _close_all(fds)
            raise
        _close_all((child_in, child_out, child_err))
        for fd in (own_in, own_out):
            _widen(fd)
        return StartedWorker(process, own_in, own_out, own_err)


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """A process that has just been started, and this side's ends of its pipes. Whoever takes it closes them."""

    process: "subprocess.Popen[bytes]"
    stdin: int
    stdout: int
    stderr: int

    def discard(self) -> None:
        """End a process that nobody wants any more."""
        self.process.kill()
        self.process.wait()
        _close_all((self.stdin, self.stdout, self.stderr))


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker process ended.

    Attributes:
        pid: its process id.
        code: its exit code; negative: the number of the signal that ended it, as in `subprocess`.
        stderr: the last lines that it wrote to stderr.
        was_ready: it said something before it ended.
        received: how many bytes it had read.
        broken: what was wrong with its output, if that is why it was ended.
    """

    pid: int
    code: int
    stderr: str
    was_ready: bool
    received: int
    broken: str | None = None

    def __str__(self) -> str:
        if self.broken is not None:
            return f"was ended because {self.broken}"
        if self.code >= 0:
            return f"exited with code {self.code}"
        return f"was ended by {_signal_name(-self.code)}"

    @property
    def hopeless(self) -> bool:
        """Whether the next process would end in the same way: it gave up by itself before it said anything."""
        return not self.was_ready and self.code >= 0

    def advice(self) -> str:
        """Return what to do about it."""
        if not self.was_ready:
            return "It had written nothing to stdout. Run the command in a terminal to see why."
        if self.code == -signal.SIGKILL:
            return "The system does that when memory runs out; see its log."
        if self.code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE):
            return "Native code has crashed; set PYTHONFAULTHANDLER=1 in executor_config['env'] to see where."
        return "The task, or code that it called, has ended the process."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # A real-time signal has no name.
        return f"signal {number}"


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _widen(fd: int) -> None:
    if _SET_PIPE_SIZE is not None:
        try:
            fcntl.fcntl(fd, _SET_PIPE_SIZE, PIPE_BYTES)
        except OSError:  # The user's pipes have reached the system's limit; the default works, too.
            pass
