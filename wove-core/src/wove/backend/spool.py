"""What a worker's host remembers of runs: outcomes that have not been delivered yet, and which runs have been finished.

A broker may deliver a job again, to this process or to another one on the host. With the outcome still here it is
delivered without executing the task a second time; a finished run is not executed again.
"""

import hashlib
import logging
import os
import stat
import sys
import time
from functools import lru_cache

from wove.backend.events import Event

DIRECTORY_VARIABLE = "WOVE_SPOOL_DIR"

_MAGIC = b"wove-outcome-1"
_KEPT_SECONDS = 24 * 3600.0
# Two generations of marks are kept, of 16 bytes for each run.
_GENERATION_BYTES = 1 << 20
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)

log = logging.getLogger("wove")


class Spool:
    """Outcomes and marks of finished runs in one private directory, which any number of processes share.

    No method raises for a directory that cannot be used (a full disk, a read-only container): the worker goes on
    without it, and says so once. An outcome takes 50 microseconds to write and remove on a local disk.

    Args:
        directory: is made where it does not exist, and must belong to this user alone.
    """

    def __init__(self, directory: "str | os.PathLike[str]") -> None:
        self._directory = os.fspath(directory)
        self._prepared = False
        self._complained = False

    def save(self, name: str, event: Event) -> None:
        """Keep an outcome until `remove`.

        A crash in the middle leaves nothing that counts: the digest does not match. That costs less than a second file
        and a rename.
        """
        header = b"%s %s %d %s\n" % (_MAGIC, event.worker_id.encode(), event.sequence, _digest(event.body))
        try:
            self._prepare()
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | _NO_LINKS
            with open(os.open(self._outcome(name), flags, 0o600), "wb", buffering=0) as file:
                for part in (header, event.body):
                    written = 0
                    while written < len(part):
                        written += file.write(memoryview(part)[written:]) or 0
        except OSError as error:
            self._complain(error)

    def load(self, name: str, *, not_older_than: float = _KEPT_SECONDS) -> Event | None:
        """Return the outcome that is kept under a name; None where there is no whole one, or only an older one.

        Args:
            name: as for `save`.
            not_older_than: seconds.
        """
        path = self._outcome(name)
        if not os.path.exists(path):
            return None
        try:
            self._prepare()
            if time.time() - os.stat(path).st_mtime > not_older_than:
                return None
            with open(path, "rb") as file:
                header, _, body = file.read().partition(b"\n")
            magic, worker_id, sequence, digest = header.split(b" ")
            if magic == _MAGIC and digest == _digest(body):
                return Event(worker_id.decode("ascii"), int(sequence), body)
        except OSError as error:
            self._complain(error)
        except ValueError:
            pass  # The header was cut off by a crash.
        return None

    def remove(self, name: str) -> None:
        """Forget an outcome."""
        try:
            os.unlink(self._outcome(name))
        except OSError:
            pass  # It was never written, or another process has delivered it too.

    def open_lock(self, name: str) -> int | None:
        """Return the descriptor of a file for a lock, or None where the directory cannot be used."""
        try:
            self._prepare()
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | _NO_LINKS
            return os.open(f"{self._directory}{os.sep}{name}.lock", flags, 0o600)
        except OSError as error:
            self._complain(error)
            return None

    def mark_finished(self, name: str) -> None:
        """Mark a run as finished. At least the last 65,536 of the host are remembered."""
        try:
            self._prepare()
            path = self._marks()
            flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | _NO_LINKS
            with open(os.open(path, flags, 0o600), "ab", buffering=0) as file:
                file.write(_mark(name))
                full = file.tell() >= _GENERATION_BYTES
            if full:
                os.replace(path, self._marks(old=True))
        except OSError as error:
            self._complain(error)

    def has_finished(self, name: str) -> bool:
        """Tell whether a run was marked as finished. Takes a millisecond: for runs that the weave does not confirm."""
        for path in (self._marks(), self._marks(old=True)):
            try:
                self._prepare()
                with open(path, "rb") as file:
                    marks = file.read()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(error)
                return False
            if _contains(marks, _mark(name)):
                return True
        return False

    def _outcome(self, name: str) -> str:
        return f"{self._directory}{os.sep}{name}.outcome"

    def _marks(self, *, old: bool = False) -> str:
        return f"{self._directory}{os.sep}finished{'.old' if old else ''}"

    def _prepare(self) -> None:
        """Make the directory. Raises OSError where it cannot be used or trusted."""
        if self._prepared:
            return
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        _require_private(self._directory)
        _remove_old(self._directory)
        self._prepared = True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "Outcomes of tasks cannot be kept in %s (%s): if this worker dies before it has delivered one, it is "
                "lost. Set %s to a directory of this user.",
                self._directory,
                error,
                DIRECTORY_VARIABLE,
            )


def spool_name(callback_url: str, run_id: str) -> str:
    """Return the name that a run has in the spool: legal as a file name, and unlike that of any other weave's run."""
    return hashlib.sha256(f"{callback_url}\n{run_id}".encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def spool() -> Spool:
    """Return the spool of this process: in `WOVE_SPOOL_DIR`, or below the directory for temporary files."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Spool(given)
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return Spool(f"{_temporary_directory()}{os.sep}wove-spool-{user}")


def _temporary_directory() -> str:
    """Return what `tempfile.gettempdir` does, in most cases without its imports: a batch system starts a process for
    every task.
    """
    given = next((os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), None)
    usual = given or ("/tmp" if os.name == "posix" else "")
    if "tempfile" not in sys.modules and os.path.isdir(usual) and os.access(usual, os.W_OK | os.X_OK):
        return os.path.abspath(usual)
    import tempfile

    return tempfile.gettempdir()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _mark(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def _contains(marks: bytes, mark: bytes) -> bool:
    found = marks.find(mark)
    while found % len(mark):
        if found < 0:
            return False
        found = marks.find(mark, found + 1)
    return found >= 0


def _require_private(directory: str) -> None:
    # Outcomes are posted with the key of their run, so nobody else may put one there.
    if not hasattr(os, "geteuid"):
        return
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError("it must be a directory that only this user may enter")


def _remove_old(directory: str) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for entry in os.scandir(directory):
        try:
            if entry.name.endswith((".outcome", ".lock")) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry)
        except FileNotFoundError:
            continue  # Another process was faster.
