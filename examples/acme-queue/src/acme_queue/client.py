"""The queue: a table of jobs and a table of workers. Every method opens the file anew and may be called anywhere."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A worker says that it lives every second.
WORKER_LOST_SECONDS = 4.0
FAILED_JOBS_KEPT_SECONDS = 3600.0

_PREFIX = "acme://"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    queue TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    cancelled INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    exit_code INTEGER,
    reason TEXT,
    created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (queue, state, created);
CREATE TABLE IF NOT EXISTS workers (id TEXT PRIMARY KEY, seen REAL NOT NULL);
"""


class QueueUnavailable(ConnectionError):
    """The file of the queue is not there, or cannot be opened."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the queue knows of a job.

    Attributes:
        state: ``queued``, ``running`` or ``failed``. A job that has been done is not in the queue any more.
        exit_code: of a failed job.
        reason: why it failed.
        worker_lost: it is running on a worker that has not been heard of for seconds.
    """

    id: str
    state: str
    exit_code: int | None
    reason: str | None
    worker_lost: bool


def create(url: str) -> None:
    """Make the file of a queue, unless it exists."""
    path = _path_of(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
    connection.close()


class Client:
    """One queue file, for those who submit jobs and for workers.

    Args:
        url: ``acme:///path/to/queue.db``.

    Raises:
        ValueError: the URL does not begin with ``acme://``.
    """

    def __init__(self, url: str) -> None:
        self._path = _path_of(url)

    def check(self) -> None:
        """Raise `QueueUnavailable` unless the queue can be used."""
        self.jobs([])

    # --- for those who submit ---

    def enqueue(self, queue: str, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        """Add jobs: payloads by job id. A job whose id is in the queue already is left as it is."""
        now = time.time()
        rows = [(job_id, queue, json.dumps(payload), now) for job_id, payload in jobs.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR IGNORE INTO jobs (id, queue, payload, created) VALUES (?, ?, ?, ?)", rows)

    def cancel(self, job_id: str) -> None:
        """Remove a job that is queued, have one stopped that is running, ignore any other."""
        with self._open() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ? AND state != 'running'", (job_id,))
            connection.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job_id,))

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return what is known of jobs, by id."""
        query = f"""
            SELECT jobs.id, state, exit_code, reason, state = 'running' AND coalesce(seen, 0) < ?
            FROM jobs LEFT JOIN workers ON workers.id = jobs.worker
            WHERE jobs.id IN ({", ".join("?" * len(job_ids))})
        """
        with self._open() as connection:
            rows = connection.execute(query, (time.time() - WORKER_LOST_SECONDS, *job_ids)).fetchall()
        return {row[0]: Job(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows}

    def all_ids(self) -> list[str]:
        """Return the ids of all jobs in the file."""
        with self._open() as connection:
            return [row[0] for row in connection.execute("SELECT id FROM jobs")]

    # --- for workers ---

    def say_hello(self, worker: str) -> None:
        """Note that a worker lives, and throw away what nobody asks for any more."""
        now = time.time()
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?)", (worker, now))
            connection.execute(
                "DELETE FROM jobs WHERE state = 'failed' AND created < ?", (now - FAILED_JOBS_KEPT_SECONDS,)
            )

    def say_goodbye(self, worker: str) -> None:
        """Forget a worker."""
        with self._open() as connection:
            connection.execute("DELETE FROM workers WHERE id = ?", (worker,))

    def workers(self) -> list[str]:
        """Return the workers that have been heard of lately."""
        with self._open() as connection:
            rows = connection.execute("SELECT id FROM workers WHERE seen > ?", (time.time() - WORKER_LOST_SECONDS,))
            return [row[0] for row in rows]

    def claim(self, queue: str, worker: str) -> tuple[str, dict[str, Any]] | None:
        """Take the job that has waited longest; return its id and payload, or None."""
        with self._open() as connection:
            row = connection.execute(
                """
                UPDATE jobs SET state = 'running', worker = ?
                WHERE id = (SELECT id FROM jobs WHERE queue = ? AND state = 'queued' ORDER BY created, rowid LIMIT 1)
                RETURNING id, payload
                """,
                (worker, queue),
            ).fetchone()
        return (row[0], json.loads(row[1])) if row else None

    def cancelled(self, worker: str) -> list[str]:
        """Return the running jobs of a worker that are to be stopped."""
        with self._open() as connection:
            rows = connection.execute("SELECT id FROM jobs WHERE worker = ? AND cancelled", (worker,))
            return [row[0] for row in rows]

    def done(self, job_id: str) -> None:
        """Remove a job that has been done, or was stopped."""
        with self._open() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def failed(self, job_id: str, exit_code: int, reason: str) -> None:
        """Keep a job that failed, for those who want to know why."""
        with self._open() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'failed', exit_code = ?, reason = ? WHERE id = ?", (exit_code, reason, job_id)
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # mode=rw: a file that is not there is an error, not a new queue.
            connection = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=10.0)
        except sqlite3.OperationalError as error:
            raise QueueUnavailable(f"The queue {_PREFIX}{self._path} is not available: {error}.") from None
        try:
            with connection:
                yield connection
        finally:
            connection.close()


def _path_of(url: str) -> Path:
    if not url.startswith(_PREFIX):
        raise ValueError(f"The URL of a queue looks like acme:///var/lib/acme/queue.db, not {url!r}.")
    return Path(url.removeprefix(_PREFIX)).absolute()
