"""Jobs: how payloads become some, each once. Blocking, from any thread."""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wove.errors import DeliveryError
from wove_slurm.commands import Answer, Commands
from wove_slurm.logs import Logs
from wove_slurm.script import LARGEST_ARRAY_SCRIPT, build_script
from wove_slurm.settings import Settings
from wove_slurm.states import SQUEUE_FORMAT, Row, read_squeue

# How long a submission whose answer was lost is looked for, and how often the controller has to say that it knows of
# none. One that was frozen works on what has come meanwhile, with many threads.
_SEARCH_SECONDS = 60.0
_SEARCH_PAUSE = 1.0
_DENIALS = 2
# How long a job of the same key, which is just ending, may hold up the next one.
_SUCCESSION_SECONDS = 2.0
_SUCCESSION_PAUSE = 0.2
# In a command line there is room for many more.
_IDS_AT_A_TIME = 500

logger = logging.getLogger("wove")


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
        waits_for: why it waits, as far as the weave has been told.
        misses: how many times in a row Slurm has not known it.
        hopeless_since: since when it waits for what it can never get.
        unwanted: whether it is to be cancelled; `told` says when Slurm has been asked last.
    """

    __slots__ = (
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
        self._settings = settings
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

    def batches(self, jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
        """Split jobs so that each part can be one job or one array."""
        batch: list[NewJob] = []
        size = 0
        for job in jobs:
            length = _length(job.payload, batch[0].payload if batch else {})
            is_full = len(batch) >= self.largest_array or size + length > LARGEST_ARRAY_SCRIPT
            if batch and (is_full or job.idempotency_key):
                yield batch
                batch, size = [], 0
            batch.append(job)
            size += length
            if job.idempotency_key:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def submit(self, batch: Sequence[NewJob]) -> list[Job]:
        """Submit one of `batches`.

        Raises:
            DeliveryError: Slurm refuses it, or another job has its idempotency key.
            ConnectionError: the controller cannot be reached; it may have taken the jobs nevertheless, see
                `ghosts`.
        """
        first = batch[0]
        if first.idempotency_key is None:
            return self._submit(batch, self._settings.prefix + first.run_id)
        beginning = self._beginning(first.idempotency_key)
        name = beginning + first.run_id
        there = self._await_succession(beginning)
        if there is not None and there.name == name:
            return [Job(there.key, run_id=first.run_id, name=name)]
        if there is not None:
            raise _taken(first.idempotency_key, there.key)
        (job,) = self._submit(batch, name)
        # Two processes may have come at the same moment: the earlier job stays.
        rivals = [row for row in self._living(beginning) if row.name != name and int(row.number) < int(job.key)]
        if rivals:
            self._commands.scancel([job.key])
            raise _taken(first.idempotency_key, rivals[0].key)
        return [job]

    def rows(self) -> dict[str, Row]:
        """Return what Slurm says about all jobs of this user that it still knows, by their keys.

        Raises:
            ConnectionError: the controller does not answer.
        """
        return self._listed(self._whose)

    def ended_rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return what the accounting database says about jobs; nothing where there is none."""
        from wove_slurm.states import SACCT_FORMAT, read_sacct

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

    def _beginning(self, idempotency_key: str) -> str:
        digest = hashlib.sha256(idempotency_key.encode()).hexdigest()[:24]
        return f"{self._settings.prefix}key-{digest}-"

    def _await_succession(self, beginning: str) -> Row | None:
        patience = time.monotonic() + _SUCCESSION_SECONDS
        while there := self._living(beginning):
            if time.monotonic() >= patience:
                return there[0]
            time.sleep(_SUCCESSION_PAUSE)
        return None

    def _living(self, beginning: str) -> list[Row]:
        rows = self._listed(self._whose).values()
        return sorted(
            (row for row in rows if row.name.startswith(beginning) and not row.is_over), key=lambda row: int(row.number)
        )

    def _listed(self, options: Sequence[str]) -> dict[str, Row]:
        answer = self._commands.squeue(f"--Format={SQUEUE_FORMAT}", *options)
        if answer.code != 0:
            raise ConnectionError(f"Slurm's controller does not answer squeue: {answer.failure}")
        return read_squeue(answer.text)

    def _submit(self, batch: Sequence[NewJob], name: str) -> list[Job]:
        is_array = len(batch) > 1
        settings = self._settings
        script = build_script(
            [job.payload for job in batch],
            command=settings.command,
            setup=settings.setup,
            forget=settings.variables.to_forget(),
        )
        options = [
            f"--job-name={name}",
            "--no-requeue",
            f"--export={settings.variables.option}",
            f"--output={self._logs.option(name, is_array=is_array)}",
            *(f"--{option}={value}" for option, value in settings.options.items()),
            *([f"--array=0-{len(batch) - 1}"] if is_array else []),
        ]
        try:
            number, in_doubt = self._submit_once(options, script, name)
        except ConnectionError:
            self.ghosts[name] = time.monotonic()
            raise
        keys = [f"{number}_{index}" for index in range(len(batch))] if is_array else [number]
        return [Job(key, run_id=job.run_id, name=name, in_doubt=in_doubt) for key, job in zip(keys, batch, strict=True)]

    def _submit_once(self, options: Sequence[str], script: str, name: str) -> tuple[str, bool]:
        """Return the id of a new job, and whether its first answer was lost."""
        answer = self._commands.sbatch(options, script)
        if not _is_id(answer) and (answer.in_doubt or answer.code == 0):
            found = self._search(name)
            if found is not None:
                return found, False
            # The controller does not know it, so it cannot have been taken. If it has been after all, the weave lets
            # only one of the two be executed.
            logger.info("Slurm's answer to the submission of %s was lost (%s); sending it again.", name, answer.failure)
            return self._id_in(self._commands.sbatch(options, script)), True
        return self._id_in(answer), False

    def _id_in(self, answer: Answer) -> str:
        if _is_id(answer):
            return answer.text.strip().partition(";")[0]
        if answer.not_reached or answer.in_doubt:
            raise ConnectionError(f"Slurm's controller cannot be reached: sbatch says: {answer.failure}")
        raise DeliveryError(
            f"Slurm refuses the job: {answer.failure}. Options of sbatch stand in executor_config"
            f"{_hint(answer.failure)}."
        )

    def _search(self, name: str) -> str | None:
        """Return the id of the job of a name; None when the controller has said that there is none.

        Raises:
            ConnectionError: it has not said anything.
        """
        deadline = time.monotonic() + _SEARCH_SECONDS
        denials, trouble = 0, ""
        while denials < _DENIALS and time.monotonic() < deadline:
            time.sleep(_SEARCH_PAUSE)
            try:
                rows = self._listed([f"--name={name}", *self._whose])
            except ConnectionError as error:
                denials, trouble = 0, str(error)
                continue
            for row in rows.values():
                return row.key.partition("_")[0]
            denials += 1
        if denials < _DENIALS:
            raise ConnectionError(f"Whether Slurm has taken the job {name} is not known. {trouble}")
        return None


def _is_id(answer: Answer) -> bool:
    # With several clusters: "17;name".
    return answer.code == 0 and answer.text.strip().partition(";")[0].isdigit()


def _taken(idempotency_key: str, key: str) -> DeliveryError:
    return DeliveryError(
        f"Slurm has the job {key} for the idempotency key {idempotency_key!r} already, and its result goes to another "
        "weave: a task with the same delivery_idempotency_key is queued or running."
    )


def _hint(failure: str) -> str:
    if "limit" in failure.lower():
        return "; delivery_max_in_flight limits how many tasks are submitted at a time"
    return ""


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _IDS_AT_A_TIME):
        yield keys[start : start + _IDS_AT_A_TIME]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign:
            yield name.strip(), value.strip()


def _length(payload: Mapping[str, Any], first: Mapping[str, Any]) -> int:
    # Close enough, and without making JSON of it twice. What payloads share stands in a script once.
    own = (value for key, value in payload.items() if first.get(key) != value)
    return sum(len(value) + 32 if isinstance(value, str) else 128 for value in own)
