"""The memory against replayed requests."""

import threading

# About 20 MB.
MOST_NONCES = 200_000


class NonceMemory:
    """Remembers which nonces were used within the window of valid timestamps. Thread-safe, of bounded size.

    When it is full, the oldest second is dropped and everything as old is refused from then on: a replay is never
    accepted, at the price of refusing late originals under a load of hundreds of requests per second.

    Args:
        window: seconds that a timestamp may be off, either way.
        limit: how many nonces are kept at the most.
    """

    def __init__(self, window: float, *, limit: int = MOST_NONCES) -> None:
        self._window = window
        self._limit = limit
        self._lock = threading.Lock()
        self._by_second: dict[int, set[str]] = {}
        self._count = 0
        self._floor = -1

    def __len__(self) -> int:
        return self._count

    def use(self, nonce: str, timestamp: int, *, now: float) -> bool:
        """Record a nonce; False if it was used before, or is too old to tell."""
        with self._lock:
            if timestamp <= self._floor:
                return False
            used = self._by_second.setdefault(timestamp, set())
            if nonce in used:
                return False
            used.add(nonce)
            self._count += 1
            # The window has 2 * window + 1 valid seconds: more of them means that some have passed.
            if self._count > self._limit or len(self._by_second) > 2 * self._window + 1:
                self._trim(now)
            return True

    def _trim(self, now: float) -> None:
        for second in [second for second in self._by_second if second < now - self._window]:
            self._count -= len(self._by_second.pop(second))
        while self._count > self._limit and len(self._by_second) > 1:
            self._floor = min(self._by_second)
            self._count -= len(self._by_second.pop(self._floor))
