"""The daemons of a Slurm cluster: processes of this one, with their logs in one folder."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Daemons:
    """Starts daemons, waits for them, and ends them.

    Args:
        folder: for their logs.
        config: the ``SLURM_CONF`` that they get.
    """

    def __init__(self, folder: Path, config: Path) -> None:
        self._folder = folder
        self._config = config
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def launch(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        """Start a daemon in a session of its own."""
        with (self._folder / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "SLURM_CONF": str(self._config), **(env or {})},
                start_new_session=True,
            )

    def wait(self, condition: Callable[[], bool], *, what: str, seconds: float = 60.0) -> None:
        """Return when something holds.

        Raises:
            RuntimeError: a daemon has ended, or it takes too long.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"Waited in vain until {what}; ended: {ended}.\n{self._complaints()}")
            time.sleep(0.05)

    def is_running(self, name: str) -> bool:
        """Whether a daemon runs."""
        return name in self._processes and self._processes[name].poll() is None

    def pids(self) -> set[int]:
        """Return the process ids."""
        return {process.pid for process in self._processes.values()}

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a daemon."""
        self._processes[name].send_signal(number)

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon, if it runs; also one that is stopped."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _complaints(self) -> str:
        logs = sorted(self._folder.iterdir())
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1000:]}" for path in logs)
