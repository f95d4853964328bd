"""Jobs, and what Slurm says about them. Blocking, from any thread."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wove_slurm.commands import Commands
from wove_slurm.logs import Logs
from wove_slurm.settings import Settings
from wove_slurm.states import SACCT_FORMAT, SQUEUE_FORMAT, Row, read_sacct, read_squeue

# In a command line there is room for many more.
_IDS_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be submitted.

    Attributes:
        run_id: the run that it carries.
        payload: what its worker executes.
        idempotency_key: what no two jobs may share at a time, or None.
    """

    run_id: str
    payload: Mapping[str, Any]
    idempotency_key: str | None = None


class Job:
    """The handle of a job, or of an element of an array.

    Attributes:
        key: Slurm's id: ``17`` or ``17_3``.
        run_id: the run that it carries.
        name: its name; the elements of an array share it.
        in_doubt: whether there may be another job of this name, because an answer was lost.
        detached: whether it may outlive its weave.
        seen: what Slurm said last.
        waits_for: why it waits, as far as the weave has been told; `begun` whether that has been told.
        misses: how many times in a row Slurm has not known it.
        hopeless_since: since when it waits for what it can never get.
        unwanted: whether it is to be cancelled; `told` says when Slurm has been asked last.
    """

    __slots__ = (
        "begun",
        "detached",
        "hopeless_since",
        "in_doubt",
        "key",
        "misses",
        "name",
        "run_id",
        "seen",
        "told",
        "unwanted",
        "waits_for",
    )

    def __init__(self, key: str, *, run_id: str, name: str, in_doubt: bool = False) -> None:
        self.key = key
        self.run_id = run_id
        self.name = name
        self.in_doubt = in_doubt
        self.detached = False
        self.seen: Row | None = None
        self.waits_for: str | None = None
        self.begun = False
        self.misses = 0
        self.hopeless_since: float | None = None
        self.unwanted = False
        self.told: float | None = None

    def __repr__(self) -> str:
        return f"<Slurm job {self.key} {self.name}>"


class Jobs:
    """The jobs of one configuration.

    Args:
        settings: how they are submitted.
        commands: Slurm's programs.
        logs: where they write.

    Attributes:
        largest_array: how many elements an array may have.
        has_accounting: whether ended jobs can be looked up in a database.
        ghosts: names of jobs that Slurm may have taken although their submission failed, and when that was.
    """

    def __init__(self, settings: Settings, commands: Commands, logs: Logs) -> None:
        self._commands = commands
        self._logs = logs
        # A project's own function may submit for another user.
        self._whose = [] if settings.submit is not None else [f"--user={os.getuid()}"]
        self.largest_array = 1
        self.has_accounting = False
        self.ghosts: dict[str, float] = {}

    def connect(self) -> None:
        """Make sure that the controller answers, and learn about the cluster.

        Raises:
            ConfigurationError: Slurm's programs are not there.
            ConnectionError: the controller does not answer.
        """
        answer = self._commands.show_config()
        if answer.code != 0:
            raise ConnectionError(
                f"Slurm's controller cannot be reached: {answer.failure}. Is it running, and does this host have the "
                "cluster's slurm.conf (or SLURM_CONF)?"
            )
        values = dict(_pairs(answer.text))
        size = values.get("MaxArraySize", "")
        # The highest index is one less than this.
        self.largest_array = max(int(size), 1) if size.isdigit() else 1
        self.has_accounting = values.get("AccountingStorageType", "").endswith("slurmdbd")

    def rows(self, *options: str) -> dict[str, Row]:
        """Return what Slurm says about all jobs of this user that it still knows, by their keys.

        Args:
            options: of squeue, which leave out some.

        Raises:
            ConnectionError: the controller does not answer.
        """
        answer = self._commands.squeue(f"--Format={SQUEUE_FORMAT}", *self._whose, *options)
        if answer.code != 0:
            raise ConnectionError(f"Slurm's controller does not answer squeue: {answer.failure}")
        return read_squeue(answer.text)

    def ended_rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return what the accounting database says about jobs; nothing where there is none."""
        rows: dict[str, Row] = {}
        for part in _parts(keys if self.has_accounting else []):
            answer = self._commands.sacct(f"--format={SACCT_FORMAT}", f"--jobs={','.join(part)}")
            if answer.code == 0:
                rows |= read_sacct(answer.text)
        return rows

    def cancel(self, keys: Sequence[str]) -> None:
        """Ask Slurm to end jobs; those that are over do not matter.

        Raises:
            ConnectionError: the controller does not answer.
        """
        for part in _parts(keys):
            answer = self._commands.scancel(part)
            if answer.not_reached or answer.in_doubt:
                raise ConnectionError(f"Slurm's controller does not answer scancel: {answer.failure}")

    def path_of(self, job: Job) -> Path | None:
        """Return the file that a job writes to, where this host can tell."""
        return self._logs.path_of(job.name, key=job.key, number=job.seen.number if job.seen else "")


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _IDS_AT_A_TIME):
        yield keys[start : start + _IDS_AT_A_TIME]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign:
            yield name.strip(), value.strip()
