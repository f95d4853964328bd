"""Asks the backend about jobs in flight, so that one that died without a final event is noticed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from wove.integrations.base import JobState

Probe = Callable[[Sequence[str]], Awaitable[Mapping[str, JobState]]]

# How long one question may take, and how far the questions move apart while the backend does not answer.
_ANSWER_SECONDS = 30.0
_SLOWEST_INTERVAL = 60.0
# While a cancel waits for its confirmation.
_HURRY_SECONDS = 0.5

logger = logging.getLogger("wove")


class JobWatcher:
    """One bulk question per interval while runs are in flight, and none otherwise.

    Lives as long as an executor session; used on the background loop only.

    Args:
        probe: asks the backend how runs are doing.
        interval: seconds between an answer and the next question.
        runs: returns the runs to ask about; once there are none, the watcher rests until `wake`.
        urgent: tells whether somebody waits for the next answer; then it comes within half a second.
        report: takes each answer.
        what: names the environment in log lines.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        interval: float,
        runs: Callable[[], Sequence[str]],
        urgent: Callable[[], bool],
        report: Callable[[str, JobState], None],
        what: str,
    ) -> None:
        self._probe = probe
        self._interval = interval
        self._runs = runs
        self._urgent = urgent
        self._report = report
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()
        self._failures = 0

    def wake(self) -> None:
        """Watch, because a run is in flight."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def hurry(self) -> None:
        """Cut the current pause short, because the next answer has become urgent."""
        self._hurried.set()

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        await self._pause()
        while runs := self._runs():
            await self._ask(runs)
            await self._pause()

    async def _pause(self) -> None:
        self._hurried.clear()
        seconds = min(self._interval * 2**self._failures, max(_SLOWEST_INTERVAL, self._interval))
        if not self._urgent():
            try:
                async with asyncio.timeout(seconds):
                    await self._hurried.wait()
            except TimeoutError:
                return
        await asyncio.sleep(min(seconds, _HURRY_SECONDS))

    async def _ask(self, runs: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                states = await self._probe(runs)
            for run_id, state in states.items():
                self._report(run_id, state)
        except Exception as error:  # An adapter may raise anything, and the tasks must not suffer from it.
            level = logging.DEBUG if self._failures else logging.WARNING
            logger.log(level, "%s: asking for the state of jobs failed: %r", self._what, error)
            self._failures = min(self._failures + 1, 10)
        else:
            self._failures = 0
