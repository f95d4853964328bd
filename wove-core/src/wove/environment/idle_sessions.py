"""Executor sessions between two weaves: one that a weave has left in order serves the next with that configuration."""

import asyncio
import threading
from collections.abc import Hashable
from contextvars import Context
from typing import NamedTuple

from wove.environment.sessions import ExecutorSession

LINGER_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_MOST = 32


class _Idle(NamedTuple):
    session: ExecutorSession
    until: float


class IdleSessions:
    """Keeps sessions that nobody uses for a few seconds, so that the next weave need not wait for the background loop.

    `take` and `give` may be called from any thread. A session belongs to one weave at a time.

    Args:
        loop: that of the sessions.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[_Idle]] = {}
        self._count = 0
        self._looking = False
        self._releasing: set[asyncio.Task[None]] = set()

    def take(self, key: Hashable) -> ExecutorSession | None:
        """Return a session of that configuration as new, for whom `ExecutorSession.release` is due; None if there is
        none.
        """
        with self._lock:
            kept = self._idle.get(key)
            if not kept:
                return None
            # The latest: the others are left until they have been idle for long enough.
            session = kept[-1].session
            if not session.reusable:  # It has broken; whoever looks next ends it.
                return None
            kept.pop()
            self._count -= 1
        session.renew()
        return session

    def give(self, key: Hashable, session: ExecutorSession) -> bool:
        """Keep a session whose runs are all over; return whether it is kept."""
        if not session.reusable:
            return False
        with self._lock:
            if self._count >= _MOST:
                return False
            self._count += 1
            self._idle.setdefault(key, []).append(_Idle(session, self._loop.time() + LINGER_SECONDS))
            looking, self._looking = self._looking, True
        if not looking:
            try:
                self._loop.call_soon_threadsafe(self._look_later, context=Context())
            except RuntimeError:
                pass  # Wove has been shut down, and the session with it.
        return True

    def _look_later(self) -> None:
        self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        with self._lock:
            overdue: list[ExecutorSession] = []
            for key, kept in list(self._idle.items()):
                left = [each for each in kept if each.until > now]
                overdue += [each.session for each in kept if each.until <= now]
                if left:
                    self._idle[key] = left
                else:
                    del self._idle[key]
            self._count -= len(overdue)
            self._looking = bool(self._idle)
        for session in overdue:
            task = self._loop.create_task(session.release())
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)
        if self._looking:
            self._look_later()
