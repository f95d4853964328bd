"""The events of one run on their way into one answer."""

import asyncio

from wove.backend.types import FINAL_EVENTS

# A message that says only that the service is there.
NO_NEWS = b'{"events":[]}'

_STARTED = b'{"type":"task_started"'


class Answer:
    """Collects the events of one run for one response."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.final = False
        self.streams = False
        self._news = asyncio.Event()

    def hear(self, run_id: str, kind: str, event: bytes) -> None:
        """Take an event of the run."""
        self.events.append(event)
        self.final = kind in FINAL_EVENTS
        # The start alone is no reason to begin a stream: most tasks are done soon, and need only one answer.
        if self.final or self.streams or kind == "heartbeat":
            self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait up to some seconds for the end, or for something that must not wait for it; False if nothing came."""
        if not self.final:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return False
        self._news.clear()
        return True

    def take(self) -> list[bytes]:
        """Return the events that have come since the last time."""
        taken, self.events = self.events, []
        return taken


def joined(events: list[bytes]) -> bytes:
    """Return events as one message: an event, a list, or nothing."""
    # The start is of no interest once the end is known.
    wanted = [event for event in events if not event.startswith(_STARTED)] or events
    return b"[" + b",".join(wanted) + b"]" if len(wanted) > 1 else b"".join(wanted)
