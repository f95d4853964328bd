"""Where the conformance scenarios run: what an author of an adapter or executor tells the kit about a backend."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from wove.backend.admission import RETRY_VARIABLE

# A worker may still hold the outcome of a task whose scenario has ended, and takes no other task while it tries to hand
# that over. It has to outlast the scenarios' outages, and be free before the next scenario counts as hanging.
_RETRY_SECONDS = "25"


class Deployment:
    """A backend with its worker, and the means to break them. Yielded by the author's ``deployment`` fixture.

    `environment` and, where there is a worker, `ensure_worker` are all that most scenarios need. The other methods are
    hooks: implement those that the backend offers a way for, and give the reason for each other one in `cannot`. A
    scenario whose hook is neither implemented nor explained fails.

    One deployment may serve many scenarios: whatever a scenario breaks, `ensure_worker` and `bring_backend_up` mend.

    Attributes:
        cannot: hook names, each with a sentence that says why it cannot be implemented.
        host: the address under which workers reach the test process.
    """

    cannot: ClassVar[Mapping[str, str]] = {}
    host: str = "127.0.0.1"

    def environment(self) -> dict[str, Any]:
        """Return a new definition of the environment under test: ``executor``, ``executor_config`` and options.

        An executor that is an instance has to be a new one each time.
        """
        raise NotImplementedError

    def ensure_worker(self) -> None:
        """Return when a worker is up, started if there was none."""

    def stop_workers(self) -> None:
        """Return when no worker is left. They need not be stopped gently, and no task is running."""
        raise NotImplementedError

    def kill_worker(self) -> None:
        """End the worker and every process that it started as a power failure would: with SIGKILL."""
        raise NotImplementedError

    def terminate_worker(self) -> None:
        """Ask the worker to stop as an operator would, in most cases with SIGTERM. Does not wait until it has."""
        raise NotImplementedError

    def kill_process(self, pid: int) -> None:
        """Kill the process that executes a task, by the process id that the task knows."""
        os.kill(pid, signal.SIGKILL)

    def pause_process(self, pid: int) -> None:
        """Stop the process that executes a task from running any further, its threads included."""
        os.kill(pid, signal.SIGSTOP)

    def resume_process(self, pid: int) -> None:
        """Undo `pause_process`; the process may be dead by now."""
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def take_backend_down(self) -> None:
        """Make the backend unreachable for the weave's process."""
        raise NotImplementedError

    def bring_backend_up(self) -> None:
        """Undo `take_backend_down`. Called at the end of a scenario that called that."""
        raise NotImplementedError

    def leftovers(self) -> Collection[str]:
        """Return names of everything in the backend that is there on behalf of a task: jobs, keys, streams, files."""
        raise NotImplementedError


class WorkerProcess:
    """A worker as an operator starts it: a command, in a process group of its own, its output kept for failures.

    Args:
        command: the program and its arguments.
        ready: tells whether the worker takes jobs; called until it does. None: it is ready once it has been started.
        env: variables to add to those of this process. Where neither has ``WOVE_CALLBACK_RETRY_SECONDS``, it is 25.
        cwd: its working directory.
        seconds: how long it may take to become ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: Callable[[], bool] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        seconds: float = 30.0,
    ) -> None:
        self._command = list(command)
        self._ready = ready
        self._env = {RETRY_VARIABLE: _RETRY_SECONDS, **os.environ, **(env or {})}
        self._cwd = cwd
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._terminated = False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the worker that was started last."""
        if self._process is None:
            raise RuntimeError("The worker has not been started.")
        return self._process.pid

    def output(self) -> str:
        """Return what all workers started here have printed so far."""
        self._output.flush()
        return os.pread(self._output.fileno(), 1_000_000, 0).decode(errors="replace")

    def ensure(self) -> None:
        """Return when a worker is running and ready.

        Raises:
            RuntimeError: it ended, or was not ready in time; the message ends with its output.
        """
        if self.running and not self._terminated:
            return
        self._end_terminated()
        process = self._process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + self._seconds
        while self._ready is not None and not self._ready():
            exit_code = process.poll()
            if exit_code is not None or time.monotonic() > deadline:
                state = "was not ready in time" if exit_code is None else f"ended with exit code {exit_code}"
                self.kill()
                raise RuntimeError(f"The worker {' '.join(self._command)} {state}. Its output:\n{self.output()}")
            time.sleep(0.02)

    def terminate(self) -> None:
        """Send SIGTERM to the worker's main process. The next `ensure` waits until it has ended, and starts another."""
        if self.running:
            self._terminated = True
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the worker and every process of its group, and wait until the worker is gone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def _end_terminated(self) -> None:
        if self._terminated and self._process is not None:
            try:
                self._process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._terminated = False

    def close(self) -> None:
        """Kill what is left and drop the output."""
        self.kill()
        self._output.close()


HOOKS = frozenset(
    "stop_workers kill_worker terminate_worker kill_process pause_process take_backend_down bring_backend_up "
    "leftovers".split()
)
