"""How payloads become jobs, each once: names, arrays, idempotency keys, answers that are lost. Blocking, from any
thread.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wove.errors import DeliveryError
from wove_slurm.commands import Answer, Commands
from wove_slurm.jobs import Job, Jobs, NewJob
from wove_slurm.logs import Logs
from wove_slurm.script import LARGEST_ARRAY_SCRIPT, build_script
from wove_slurm.settings import Settings
from wove_slurm.states import Row

# How long a submission whose answer was lost is looked for, and how often the controller has to say that it knows of
# none. One that was frozen works on what has come meanwhile, with many threads.
_SEARCH_SECONDS = 60.0
_SEARCH_PAUSE = 1.0
_DENIALS = 2
# How long a job of the same key, which is just ending, may hold up the next one.
_SUCCESSION_SECONDS = 2.0
_SUCCESSION_PAUSE = 0.2

logger = logging.getLogger("wove")


class Placement:
    """Submits jobs.

    Args:
        jobs: knows the cluster, and what is there already.
        settings: how jobs are submitted.
        commands: Slurm's programs.
        logs: where jobs write.
    """

    def __init__(self, jobs: Jobs, settings: Settings, commands: Commands, logs: Logs) -> None:
        self._jobs = jobs
        self._settings = settings
        self._commands = commands
        self._logs = logs

    def batches(self, jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
        """Split jobs so that each part can be one job or one array."""
        batch: list[NewJob] = []
        size = 0
        for job in jobs:
            length = _length(job.payload, batch[0].payload if batch else {})
            is_full = len(batch) >= self._jobs.largest_array or size + length > LARGEST_ARRAY_SCRIPT
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
                `Jobs.ghosts`.
        """
        first = batch[0]
        if first.idempotency_key is None:
            return self._submit(batch, self._settings.prefix + first.run_id)
        return [self._submit_keyed(first, first.idempotency_key)]

    def _submit_keyed(self, new: NewJob, idempotency_key: str) -> Job:
        beginning = self._beginning(idempotency_key)
        there = self._await_succession(beginning)
        if there is not None:
            raise _taken(idempotency_key, there.key)
        (job,) = self._submit([new], beginning + new.run_id)
        try:
            # Two processes may have come at the same moment: the earlier job stays.
            rivals = [row for row in self._living(beginning) if int(row.number) < int(job.key)]
        except ConnectionError:
            self._jobs.ghosts[job.name] = time.monotonic()
            raise
        if rivals:
            self._jobs.cancel([job.key])
            raise _taken(idempotency_key, rivals[0].key)
        return job

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
        rows = self._jobs.rows().values()
        return sorted(
            (row for row in rows if row.name.startswith(beginning) and not row.is_over), key=lambda row: int(row.number)
        )

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
            self._jobs.ghosts[name] = time.monotonic()
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
                rows = self._jobs.rows(f"--name={name}")
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


def _length(payload: Mapping[str, Any], first: Mapping[str, Any]) -> int:
    # Close enough, and without making JSON of it twice. What payloads share stands in a script once.
    own = (value for key, value in payload.items() if first.get(key) != value)
    return sum(len(value) + 32 if isinstance(value, str) else 128 for value in own)
