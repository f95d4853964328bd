"""Equal idempotency keys on one host: executed one after the other, and a result that is there already is given again.

For backends that cannot recognize equal jobs themselves. It reaches as far as the spool's directory does: the processes
of one user on one host.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from wove.backend.events import Event
from wove.backend.frames import frame_from_bytes, json_to_bytes
from wove.backend.spool import Spool

_POLL_SECONDS = 0.05


class OnceGuard:
    """Holds an idempotency key while its task is executed.

    Args:
        key: the key; the same one for another adapter is another one.
        adapter: the adapter's name.
        kept: where results are kept.
        seconds: how long a result is given to later runs with the key.
    """

    def __init__(self, key: str, *, adapter: str, kept: Spool, seconds: float) -> None:
        self._name = "key-" + hashlib.sha256(f"{adapter}\n{key}".encode()).hexdigest()[:32]
        self._spool = kept
        self._seconds = seconds
        self._lock: int | None = None

    def enter(
        self, ids: Mapping[str, Any], *, told_to_stop: Callable[[], bool], sleep: Callable[[float], None] = time.sleep
    ) -> bytes | None:
        """Wait until no other run on this host holds the key.

        Args:
            ids: ``run_id`` and ``task_id`` of this run.
            told_to_stop: ends the waiting.
            sleep: passes time.

        Returns:
            The final event of this run if an earlier one with the key has had a result; None if the task is to be
            executed.
        """
        while not self._locked():
            if told_to_stop():
                return None
            sleep(_POLL_SECONDS)
        earlier = self._spool.load(self._name, not_older_than=self._seconds)
        if earlier is None:
            return None
        return json_to_bytes({**frame_from_bytes(earlier.body), **ids})

    def remember(self, body: bytes) -> None:
        """Keep a run's final event, which is a result, for later runs with the key."""
        self._spool.save(self._name, Event("-", 0, body))

    def leave(self) -> None:
        """Let go of the key. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> bool:
        descriptor = self._spool.open_lock(self._name)
        if descriptor is None:
            return True  # Without the directory nothing is known of other runs.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True


def once_guard(payload: Mapping[str, Any], *, kept: Spool, seconds: float | None) -> OnceGuard | None:
    """Return the guard of a payload's idempotency key, or None where it has none or equal keys are not looked for."""
    key = (payload.get("delivery") or {}).get("delivery_idempotency_key")
    if seconds is None or not isinstance(key, str) or not key:
        return None
    return OnceGuard(key, adapter=str(payload.get("adapter")), kept=kept, seconds=seconds)
