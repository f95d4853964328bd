"""A clock that a test moves: sleeping takes no time but counts."""

from collections.abc import Callable

from wove.backend.events import Clock


class VirtualClock:
    """Time that passes by `sleep` only. `on_sleep` is called with each new time, to let things happen meanwhile."""

    def __init__(self, *, wall: float = 1_700_000_000.0) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[float], object] | None = None
        self._wall = wall
        self.clock = Clock(monotonic=lambda: self.now, wall=lambda: self._wall + self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds
        if self.on_sleep is not None:
            self.on_sleep(self.now)
