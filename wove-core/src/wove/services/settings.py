"""What can be set about a worker service, and the values that are taken."""

import os
from dataclasses import dataclass
from math import isfinite

from wove.errors import ConfigurationError

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How a worker service executes tasks.

    Attributes:
        workers: how many worker processes; None for one per processor.
        threads: how many synchronous tasks run side by side in one worker process. Coroutines are not counted.
        beat: seconds between the signs of life that waiting clients get.
        grace: seconds that running tasks get at shutdown.
        max_body_bytes: the largest command that is accepted.

    Raises:
        ConfigurationError: a value is of the wrong kind.
    """

    workers: int | None = None
    threads: int = 64
    beat: float = 10.0
    grace: float = 30.0
    max_body_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name in ("threads", "max_body_bytes") if self.workers is None else ("workers", "threads", "max_body_bytes"):
            if not _is_count(getattr(self, name)):
                raise ConfigurationError(f"Worker service: {name} must be a whole number of at least 1.")
        if not _is_seconds(self.beat) or self.beat == 0:
            raise ConfigurationError("Worker service: beat must be a positive, finite number of seconds.")
        if not _is_seconds(self.grace):
            raise ConfigurationError("Worker service: grace must be a finite number of seconds, 0 or more.")

    @property
    def processes(self) -> int:
        """How many worker processes there are."""
        return self.workers or os.cpu_count() or 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
