"""`RayAdapter`: lets tasks of a weave run on a Ray cluster."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from wove.backend.threads import in_daemon_thread
from wove.backend.types import FINAL_EVENTS
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove_ray.intake import Intake
from wove_ray.settings import read_settings

if TYPE_CHECKING:
    from wove_ray.runs import Runs, Submission, Submitted

# Through Ray Client every byte passes the head's process; what is larger waits at the callback receiver instead.
_LARGEST_THROUGH_CLIENT = 256 * 1024
# Ray is asked about more tasks than these in a thread.
_FEW = 8
# Ray carries values of up to 100 kB in its own messages; others go to its store, and cost more than to post them.
_LARGEST_RETURNED = 64 * 1024
# How long Ray may take to accept a cancel.
_ANSWER_SECONDS = 8.0
_CLOSE_SECONDS = 3.0
# From when on Ray is to tell of a task's end. Each of its calls disturbs whatever this process does.
_UNWATCHED_SECONDS = 0.1
# With more tasks in flight than these, their ends are taken at most every few milliseconds: to wake this process's
# loops for each costs more than all else about it.
_SINGLE, _RASTER_SECONDS = 16, 0.005
# How often the session is looked at while there are runs. Nobody tells when the program closes it.
_SESSION_SECONDS = 1.0

logger = logging.getLogger("wove")


class RayAdapter(BackendAdapter):
    """Submits tasks to Ray clusters whose workers have Wove's core installed.

    ``executor_config``: ``address``, ``init``, ``init_options``, ``remote_options``, ``force_cancel``,
    ``cancel_grace``, ``queue_timeout``. The README has a table.

    Attributes:
        returns_from: how many tasks must be in flight for a driver to let the outcomes of further ones come back as
            their values: that is less work for both sides. Where there is little else to do, what a worker posts is
            here sooner.
    """

    required_modules = ("ray",)
    install_hint = "pip install wove-ray"
    carries_apart = True
    carries_outcomes = True
    returns_from: ClassVar[int] = 2
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _runs: "Runs | None" = None

    async def start(self) -> None:
        """Check the configuration, and make a session with Ray if this process has none.

        Raises:
            ConfigurationError: a key is wrong, or the session that there is belongs to another cluster; the message
                names the key and shows an example.
            ConnectionError: the cluster cannot be reached.
        """
        self._settings = read_settings(self.config, name=self.name)
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[str, JobState]] = asyncio.Queue()
        self._inflight: dict[str, Submitted] = {}
        self._unwanted: Gathering[Submitted] = Gathering(self._stop)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.TimerHandle | None = None
        self._checking: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended: deque[Submitted] = deque()
        self._waking = False
        self._taken_at = -math.inf
        await in_daemon_thread(self._join)
        self._intake = Intake(self._connected, track=self._track, withdraw=self._withdraw)
        if self._connected.is_client:
            self.max_payload_bytes = _LARGEST_THROUGH_CLIENT

    def _join(self) -> None:
        # Ray takes more than a second to import.
        from wove_ray.runs import Runs

        runs = Runs(self._settings, self._on_end)
        self._runs = runs
        if self._closed:
            runs.close()

    async def submit_many(
        self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> Sequence["Submitted | Exception"]:
        """Submit tasks in one go.

        Raises:
            DeliveryError: no node of the cluster can run them.
            ConnectionError: Ray does not answer.
        """
        # A run that is submitted again is the run that there is.
        handles: dict[str, Submitted | Exception] = {
            payload["run_id"]: self._inflight[payload["run_id"]]
            for payload, _ in submissions
            if payload["run_id"] in self._inflight
        }
        new: list[Submission] = [
            (payload, frame.get("apart") or ()) for payload, frame in submissions if payload["run_id"] not in handles
        ]
        submitted = await self._intake.submit(new, returns=self._largest_returned(len(new)))
        handles |= zip((payload["run_id"] for payload, _ in new), submitted, strict=True)
        return [handles[payload["run_id"]] for payload, _ in submissions]

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> "Submitted | None":
        """Submit a small task; None where that is more than a moment's work."""
        if payload["run_id"] in self._inflight:
            return None
        return self._intake.submit_now((payload, frame.get("apart") or ()), returns=self._largest_returned(1))

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Withdraw a task that waits; interrupt one that runs, and kill its process if that does not help."""
        from wove_ray.runs import Submitted

        if isinstance(submission, Submitted) and not submission.over:
            submission.unwanted = True
            await self._unwanted.add(submission)

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note that a task has begun, or that nothing more is expected of it."""
        run = self._inflight.get(run_id)
        if run is None:
            return
        if event_type in FINAL_EVENTS:
            # Later: Ray takes its time to let go of a task, and the worker waits for its answer.
            self._loop.call_soon(self._forget, run)
        elif not run.begun:
            run.begun = True
            if not run.unwanted:
                self._disarm(run_id)

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield the ends of tasks, as Ray tells them."""
        while True:
            yield await self._news.get()

    async def close(self) -> None:
        """Kill what has not stopped in the project's own session, then leave the session."""
        self._closed = True
        if self._runs is None:
            return
        await self._unwanted.close(_CLOSE_SECONDS)
        for timer in (*self._timers.values(), *filter(None, [self._watching, self._checking])):
            timer.cancel()
        left = [run for run in self._inflight.values() if run.unwanted]
        if left and self._settings.force_cancel is None:
            await self._kill(left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_CLOSE_SECONDS)
        await in_daemon_thread(self._runs.close)

    @property
    def _connected(self) -> "Runs":
        if self._runs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._runs

    def _largest_returned(self, more: int) -> int:
        """Return the bytes up to which the outcomes of some more tasks are to come back as their values."""
        if not self.carries_outcomes or self._connected.is_client or len(self._inflight) + more < self.returns_from:
            return 0
        # What is larger than the receiver takes is posted, so that the worker hears of that.
        return min(_LARGEST_RETURNED, self.config.get("callback_max_bytes") or _LARGEST_RETURNED)

    def _withdraw(self, runs: "Sequence[Submitted]") -> None:
        """Cancel what has been submitted after all, when nobody waits for it any more."""
        for run in runs:
            self._inflight.pop(run.run_id, None)
            self._disarm(run.run_id)
        if runs:
            self._spawn(self._kill(runs))

    def _track(self, run: "Submitted") -> None:
        self._inflight[run.run_id] = run
        if run.over:
            # Before it was tracked: Ray tells it on another thread.
            self._loop.call_soon(self._take_end, run)
            return
        if self._settings.queue_timeout is not None:
            self._arm(run, self._settings.queue_timeout, self._give_up_waiting)
        if self._watching is None:
            self._watching = self._loop.call_later(_UNWATCHED_SECONDS, self._watch_late)
        if self._checking is None:
            self._checking = self._loop.call_later(_SESSION_SECONDS, self._check_session)

    def _check_session(self) -> None:
        """End the runs whose session is gone."""
        self._checking = None
        for run in self._connected.lost(self._inflight.values()):
            run.error = ConnectionError("the session with Ray has been closed, and its tasks have ended with it")
            self._take_end(run)
        if self._inflight:
            self._checking = self._loop.call_later(_SESSION_SECONDS, self._check_session)

    def _watch_late(self) -> None:
        """Ask Ray about the tasks whose events have not come soon. Most are over by now, and cost nothing."""
        self._watching = None
        now = time.monotonic()
        unwatched = [run for run in self._inflight.values() if not run.watched]
        late = [run for run in unwatched if now - run.since >= _UNWATCHED_SECONDS]
        if late:
            self._spawn(self._watch_now(late))
        if len(late) < len(unwatched):
            self._watching = self._loop.call_later(_UNWATCHED_SECONDS, self._watch_late)

    async def _watch_now(self, runs: "list[Submitted]") -> None:
        for run in runs:
            run.watched = True
        try:
            if self._connected.is_client or len(runs) > _FEW:
                await in_daemon_thread(self._connected.watch, runs)
            else:
                self._connected.watch(runs)
        except Exception as error:  # The session is gone, and what ran in it.
            for run in runs:
                run.error = error
                self._take_end(run)

    def _on_end(self, run: "Submitted") -> None:
        # On a thread of Ray's. To wake the loop costs more than the rest, so one call does for all that end meanwhile.
        self._ended.append(run)
        if self._waking:
            return
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._take_ends_in_time)
        except RuntimeError:
            pass  # The loop has been closed.

    def _take_ends_in_time(self) -> None:
        due = self._taken_at + _RASTER_SECONDS
        if len(self._inflight) <= _SINGLE or self._loop.time() >= due:
            self._take_ends()
        else:
            self._loop.call_at(due, self._take_ends)

    def _take_ends(self) -> None:
        # First: who adds one from now on calls again. One call too many does no harm.
        self._waking = False
        self._taken_at = self._loop.time()
        while self._ended:
            self._take_end(self._ended.popleft())

    def _take_end(self, run: "Submitted") -> None:
        from wove_ray.ends import state_of

        if self._inflight.get(run.run_id) is run:
            self._forget(run)
            self._news.put_nowait((run.run_id, state_of(run.error, run.outcome)))

    def _forget(self, run: "Submitted") -> None:
        if self._inflight.get(run.run_id) is run:
            del self._inflight[run.run_id]
            self._disarm(run.run_id)
        run.ref = None

    # --- tasks that do not stop, and tasks that do not begin ---

    async def _stop(self, runs: "list[Submitted]") -> None:
        force = self._settings.force_cancel
        # Their events are not heard any more.
        await self._watch_now([run for run in runs if not run.watched])
        await self._answered(self._connected.cancel, runs, force=force is True)
        if force is None:
            for run in runs:
                if not run.over:
                    self._arm(run, self._settings.cancel_grace, self._stop_by_force)

    def _stop_by_force(self, run: "Submitted") -> None:
        logger.info("Run %s did not stop within %g s; Ray kills its process.", run.run_id, self._settings.cancel_grace)
        self._spawn(self._kill([run]))

    async def _kill(self, runs: "Sequence[Submitted]") -> None:
        try:
            await self._answered(self._connected.cancel, runs, force=True)
        except Exception as error:  # Ray is away; its tasks end with the session.
            logger.debug("Cancelling tasks of Ray failed: %s", error)

    def _give_up_waiting(self, run: "Submitted") -> None:
        self._spawn(self._end_waiting(run))

    async def _end_waiting(self, run: "Submitted") -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                why = await in_daemon_thread(self._connected.misfit) or "all nodes that could run it are busy"
        except Exception as error:  # That Ray cannot be asked is a reason, too.
            why = f"its cluster does not answer ({type(error).__name__})"
        if run.begun or run.over:
            return
        reason = f"Ray has not started it within the queue_timeout of {self._settings.queue_timeout:g} s: {why}"
        self._news.put_nowait((run.run_id, JobState("failed", reason=reason, grace=0.0)))
        await self._kill([run])

    async def _answered(self, call: Any, runs: "Sequence[Submitted]", *, force: bool) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await in_daemon_thread(lambda: call(runs, force=force))

    def _arm(self, run: "Submitted", seconds: float, act: Any) -> None:
        self._disarm(run.run_id)
        self._timers[run.run_id] = self._loop.call_later(seconds, act, run)

    def _disarm(self, run_id: str) -> None:
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
