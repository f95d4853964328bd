"""Where jobs write what they print, and what can be told of it after their death: blocking, from any thread."""

import os
import re
import secrets
import shutil
from pathlib import Path

from wove.errors import ConfigurationError

NOWHERE = ("none", "/dev/null")
_TAIL_BYTES = 4096
_TAIL_LINES = 20
_ELEMENT = re.compile(r"%(\d*)([%AajuxJ])")


class Logs:
    """The files of one adapter's jobs. Where the configuration names none, they are in a directory that only this user
    may enter, and are removed with their jobs.

    Args:
        output: a directory, with a slash at its end; a file name as ``sbatch --output`` takes it, for logs that stay;
            one of `NOWHERE`; or None for a directory below the user's own for such things.
    """

    def __init__(self, output: str | None) -> None:
        self._pattern = output if output is not None and not output.endswith("/") else None
        self._parent = None if self._pattern else Path(output) if output else _default_parent()
        self._folder: Path | None = None

    def prepare(self) -> None:
        """Make the directory, if there is to be one.

        Raises:
            ConfigurationError: it cannot be made.
        """
        if self._parent is None:
            return
        folder = self._parent / f"session-{os.getpid()}-{secrets.token_hex(6)}"
        try:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"The directory for the logs of jobs cannot be made: {folder}: {error.strerror}. Give one that this "
                "host and the nodes share, for example 'output': '/shared/logs/', or 'output': 'none'."
            ) from error
        self._folder = folder

    def option(self, name: str, *, is_array: bool) -> str:
        """Return the value of ``--output`` for a job of a name."""
        if self._folder is not None:
            # In a file's name a percent sign begins one of Slurm's patterns.
            return f"{str(self._folder).replace('%', '%%')}/{name}{'-%a' if is_array else ''}.log"
        return "/dev/null" if self._pattern in (None, *NOWHERE) else str(self._pattern)

    def path_of(self, name: str, *, key: str, number: str) -> Path | None:
        """Return the file of a job, or of an element of an array, where this host can tell.

        Args:
            name: the job's name.
            key: ``17`` or ``17_3``.
            number: the job's own id; may be empty.
        """
        job, _, index = key.partition("_")
        if self._folder is not None:
            return self._folder / f"{name}{f'-{index}' if index else ''}.log"
        if self._pattern in (None, *NOWHERE):
            return None
        values = {
            "A": job,
            "a": index or "4294967294",
            "j": number,
            "J": number,
            "u": os.environ.get("USER", ""),
            "x": name,
        }
        path = _ELEMENT.sub(lambda found: _filled(found, values), str(self._pattern))
        return None if "%" in path.replace("%%", "") else Path(path.replace("%%", "%"))

    def tail(self, path: Path | None) -> str:
        """Return the last lines of a file; empty where there are none, or no file."""
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def remove(self, path: Path | None) -> None:
        """Remove a job's file, unless the configuration named it."""
        if path is not None and self._folder is not None:
            path.unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """Remove the directory.

        Args:
            keep: there are jobs that have not begun yet, and will want to write there.
        """
        if self._folder is not None and not keep:
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                self._folder.parent.rmdir()
            except OSError:
                pass  # Somebody else's are there, too.
            self._folder = None


def _filled(found: "re.Match[str]", values: dict[str, str]) -> str:
    width, letter = found.groups()
    if letter == "%" or not values.get(letter):
        return found.group()
    return values[letter].zfill(int(width or 0))


def _default_parent() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "wove-slurm"
