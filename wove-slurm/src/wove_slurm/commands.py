"""Runs Slurm's programs: blocking, from any thread."""

import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wove.errors import ConfigurationError
from wove_slurm.settings import Settings
from wove_slurm.variables import client_variables

# Slurm's programs give up by themselves, mostly after MessageTimeout (10 s); sbatch asks again for a while when the
# controller is busy.
_SBATCH_SECONDS = 60.0
_ANSWER_SECONDS = 25.0
# "Unable to contact slurm controller (connect failure)" and its like: nothing has been sent.
_NOT_REACHED = re.compile(
    r"unable to contact slurm controller \(connect failure\)|connection refused|unable to resolve|"
    r"could not establish a configuration source|no route to host|name or service not known",
    re.IGNORECASE,
)
# The controller has got a request, or may have, and nobody knows what it did about it.
_IN_DOUBT = re.compile(
    r"timed out|zero bytes|unexpected message|connection (reset|closed|aborted)|communication|"
    r"transport endpoint|send/recv|unable to contact slurm controller|broken pipe|insane message",
    re.IGNORECASE,
)
_LONGEST_COMPLAINT = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Attributes:
        code: its exit code; None: it was ended because it took too long.
        text: its standard output.
        complaint: its standard error, shortened, without the program's own name.
    """

    code: int | None
    text: str
    complaint: str

    @property
    def not_reached(self) -> bool:
        """Whether the controller cannot have got the request."""
        return self.code not in (0, None) and _NOT_REACHED.search(self.complaint) is not None

    @property
    def in_doubt(self) -> bool:
        """Whether the controller may have done what was asked although the program failed."""
        if self.code is None or self.code < 0:
            return True
        return self.code != 0 and not self.not_reached and _IN_DOUBT.search(self.complaint) is not None

    @property
    def failure(self) -> str:
        """Why it failed, in words."""
        return self.complaint or ("no answer" if self.code is None else f"exit code {self.code} without a word")


class Commands:
    """Slurm's programs.

    Args:
        settings: which ones, and the environment of jobs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def sbatch(self, options: Sequence[str], script: str) -> Answer:
        """Submit a script; the text of the answer is the job's id."""
        program = self._settings.sbatch
        env = self._settings.variables.of_sbatch()
        return self._run([program, "--parsable", *options], stdin=script, env=env, seconds=_SBATCH_SECONDS)

    def squeue(self, *options: str) -> Answer:
        """List jobs."""
        return self._run([self._settings.squeue, "--noheader", "--array", "--states=all", *options])

    def sacct(self, *options: str) -> Answer:
        """List jobs that the accounting database knows."""
        return self._run([self._settings.sacct, "--allocations", "--noheader", "--parsable2", *options])

    def scancel(self, jobs: Sequence[str]) -> Answer:
        """End jobs."""
        return self._run([self._settings.scancel, "--quiet", *jobs])

    def show_config(self) -> Answer:
        """Return the cluster's configuration."""
        return self._run([self._settings.scontrol, "show", "config"])

    def close(self) -> None:
        """End what is running, and start nothing any more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            process.kill()

    def _run(
        self,
        command: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        seconds: float = _ANSWER_SECONDS,
    ) -> Answer:
        process = self._started(command, client_variables() if env is None else env)
        try:
            text, complaint = process.communicate(stdin, timeout=seconds)
            return Answer(process.returncode, text, _shortened(complaint))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Answer(None, "", f"no answer within {seconds:g} s")
        finally:
            with self._lock:
                self._running.discard(process)

    def _started(self, command: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[str]":
        with self._lock:
            if self._closed:
                raise ConnectionError(f"{os.path.basename(command[0])} is not run: the adapter has been closed.")
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env={**env},
                    # Ctrl-C is for the weave, which cancels its jobs; they must still be asked for then.
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigurationError(_not_started(command[0], error)) from None
            self._running.add(process)
            return process


def _not_started(program: str, error: OSError) -> str:
    return (
        f"Slurm's program {program!r} cannot be started: {error.strerror or error}. Install Slurm's client programs "
        "on this host (Debian: slurm-client), or say where they are, for example 'sbatch': '/opt/slurm/bin/sbatch'."
    )


def _shortened(complaint: str) -> str:
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in complaint.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(lines))
    return text if len(text) <= _LONGEST_COMPLAINT else f"{text[:_LONGEST_COMPLAINT]} …"
