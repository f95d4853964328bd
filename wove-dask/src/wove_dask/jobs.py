"""Everything that the adapter asks of Dask, and what Dask says of its tasks."""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dask
from distributed import Client, Future, fire_and_forget

from wove.backend.types import FINAL_EVENTS
from wove.errors import DeliveryError
from wove.integrations.base import JobState
from wove.integrations.jobs import is_detached, job_id_of
from wove_dask.carrier import CLIENT
from wove_dask.connections import Connection
from wove_dask.departures import Departures, departures_of
from wove_dask.outcomes import Outcomes, outcomes_of
from wove_dask.prospects import why_waiting
from wove_dask.settings import Settings
from wove_dask.worker import execute

# Dask warns of graphs beyond 10 MB.
_LARGEST_GRAPH = 8 * 1024 * 1024
# Nothing comes from a task that failed or is gone but what is on its way already.
_GRACE_SECONDS = 1.0
# What a weave and a worker that lose sight of each other are granted in any case, see `LEASE_SECONDS`.
_DELIVERY_SECONDS = 35.0
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.02, 0.25, 1.5
# Dask groups what it shows by the part of a key before the first dash.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]+")

logger = logging.getLogger("wove")

Report = Callable[[str, JobState], object]
Submission = tuple[dict[str, Any], dict[str, Any]]


class Submitted:
    """The handle of a task.

    Attributes:
        run_id: Wove's id.
        key: Dask's.
        future: Dask's, while the task is not over. It lives on the client's loop.
        begun: whether a worker has been heard of.
        carried: whether its worker tells the scheduler, instead of the weave, that it begins.
        shared: whether a task of another weave may bear the same key.
        unwanted: whether it has been taken back by Wove.
    """

    __slots__ = ("begun", "carried", "future", "key", "run_id", "shared", "unwanted")

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self.run_id: str = frame["run_id"]
        self.key = _key(frame)
        self.future: Future | None = None
        self.shared = job_id_of(frame) != self.run_id
        self.begun = False
        self.carried = False
        self.unwanted = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected of Dask."""
        return self.future is None or self.future.status != "pending"

    def let_go(self) -> Future | None:
        """Return Dask's future and hold it no longer."""
        future, self.future = self.future, None
        return future

    def __repr__(self) -> str:
        return f"<Dask task {self.key}>"


class Jobs:
    """The tasks of one adapter. Its public methods are called on Wove's background loop; the others run on the
    client's.

    Args:
        connection: to the scheduler.
        settings: how tasks are submitted.
        report: takes the id and the state of each run that is over; called on the client's loop.
        carries: whether the scheduler may carry outcomes.
    """

    def __init__(self, connection: Connection, settings: Settings, report: Report, *, carries: bool) -> None:
        self._connection = connection
        self._settings = settings
        self._report = report
        self._carries = carries
        # By run, on Wove's loop; those of them that Dask has, on the client's.
        self._handles: dict[str, Submitted] = {}
        self._submitted: dict[str, Submitted] = {}
        self._following: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._departures: Departures | None = None
        self._outcomes: Outcomes | None = None

    async def connect(self) -> None:
        """Connect to the scheduler.

        Raises:
            ConnectionError: it cannot be reached.
        """
        client = await self._connection.client()
        await self._connection.run(self._listen, client)

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note that a worker has reported something about a run."""
        handle = self._handles.get(run_id)
        if handle is not None:
            handle.begun = True
        if event_type in FINAL_EVENTS:
            self._handles.pop(run_id, None)

    async def submit(self, submissions: Sequence[Submission]) -> list[Submitted]:
        """Submit tasks, all of them in one message unless they are large.

        Raises:
            ConnectionError: the scheduler cannot be reached.
        """
        client = await self._connection.client()
        handles = [Submitted(frame) for _, frame in submissions]
        self._handles.update((handle.run_id, handle) for handle in handles)
        try:
            await self._connection.run(self._submit, client, handles, submissions)
        except BaseException:
            for handle in handles:
                self._handles.pop(handle.run_id, None)
            raise
        return handles

    async def cancel(self, handles: Sequence[Submitted]) -> None:
        """Take tasks back. Those that run are stopped by their workers."""
        await self._connection.run(self._cancel, handles)

    async def why_waiting(self) -> str | None:
        """Return why no worker of the cluster can take these tasks, or None."""
        client = await self._connection.client()
        return await self._connection.run(self._why_waiting, client)

    def waiting(self, run_ids: Iterable[str]) -> list[str]:
        """Return those of the runs that no worker has begun, as far as is known."""
        handles = ((run_id, self._handles.get(run_id)) for run_id in run_ids)
        return [run_id for run_id, handle in handles if handle is not None and not handle.begun]

    async def close(self) -> None:
        """Follow no task any more, and let go of those that are not over."""
        if self._departures is None:
            return
        try:
            await self._connection.run(self._stop_following)
        except ConnectionError as error:  # The project's own client has ended before, and everything with it.
            logger.debug("%s", error)

    async def _submit(self, client: Client, handles: list[Submitted], submissions: Sequence[Submission]) -> None:
        carried = await self._listen(client)
        bodies = [json.dumps(payload).encode() for payload, _ in submissions]
        annotations = {**self._settings.annotations, **({CLIENT: client.id} if carried else {})}
        for part in _parts(bodies):
            with dask.annotate(**annotations):
                futures = client.map(
                    execute,
                    bodies[part],
                    key=[handle.key for handle in handles[part]],
                    pure=False,
                    **self._settings.submit_options,
                )
            for handle, future in zip(handles[part], futures, strict=True):
                handle.future, handle.carried = future, carried
        for handle, (_, frame) in zip(handles, submissions, strict=True):
            if is_detached(frame):
                fire_and_forget(handle.future)
        self._submitted.update((handle.run_id, handle) for handle in handles)
        self._keep_following()

    async def _listen(self, client: Client) -> bool:
        """Hear of workers that leave, and of outcomes; tell whether the scheduler carries these."""
        self._departures = departures_of(client)
        self._departures.listen(self._departed)
        if not self._carries:
            return False
        self._outcomes = outcomes_of(client)
        return await self._outcomes.listen(self._take_outcome)

    def _take_outcome(self, run_id: str, outcome: bytes) -> bool:
        if run_id not in self._handles:
            return False
        self._report(run_id, JobState("finished", outcome=outcome, grace=_GRACE_SECONDS))
        return True

    async def _cancel(self, handles: Sequence[Submitted]) -> None:
        futures = []
        for handle in handles:
            handle.unwanted = True
            if handle.future is not None:
                futures.append(handle.future)
        if futures:
            await futures[0].client.cancel(futures)

    async def _why_waiting(self, client: Client) -> str | None:
        options = self._settings.submit_options
        # Each worker describes itself at length, and there may be thousands.
        limited = "workers" in options or "resources" in options
        known = await client.scheduler.identity(n_workers=-1 if limited else 1)
        return why_waiting(known["workers"], options, where=client.scheduler.address)

    async def _departed(self, worker: str, keys: Collection[Any]) -> None:
        """Take back, and report, what was being executed by a worker that has left: Dask would start it again."""
        lost = [handle for handle in self._submitted.values() if handle.key in keys and handle.begun]
        for handle in lost:
            reason = f"its worker {worker} has left the cluster"
            self._report(handle.run_id, JobState("failed", reason=reason, grace=_GRACE_SECONDS))
        await self._cancel(lost)

    async def _stop_following(self) -> None:
        if self._departures is not None:
            self._departures.ignore(self._departed)
        if self._outcomes is not None:
            self._outcomes.ignore(self._take_outcome)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following], timeout=1.0)
        for handle in self._submitted.values():
            future = handle.let_go()
            if future is not None:
                future.release()
        self._submitted.clear()

    def _keep_following(self) -> None:
        self._pause = _FIRST_PAUSE
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        """Report each task that is over, and let go of it: Dask would execute it again if its result were lost.

        Outcomes do not come this way, so it need not be prompt. A waiter for each task, as Dask has it, would cost more
        than all else that this process does for the task.
        """
        while self._submitted:
            await asyncio.sleep(self._pause)
            over = [handle for handle in self._submitted.values() if handle.is_over]
            self._pause = _FIRST_PAUSE if over else min(_GROWTH * self._pause, _LONGEST_PAUSE)
            for handle in over:
                self._submitted.pop(handle.run_id, None)
                await self._end(handle)

    async def _end(self, handle: Submitted) -> None:
        future = handle.let_go()
        if future is None:
            return
        try:
            state = await _state_of(future, handle)
        finally:
            future.release()
        if state is None or handle.run_id not in self._handles:
            self._handles.pop(handle.run_id, None)
        elif state.phase == "finished":
            # Its worker may still be busy delivering the outcome.
            asyncio.get_running_loop().call_later(_DELIVERY_SECONDS, self._report_late, handle.run_id, state)
        else:
            self._report_late(handle.run_id, state)

    def _report_late(self, run_id: str, state: JobState) -> None:
        """Report the state of a run that nothing final has been heard of."""
        if self._handles.pop(run_id, None) is not None:
            self._report(run_id, state)


async def _state_of(future: Future, handle: Submitted) -> JobState | None:
    """Return what a task that is over has become; None where that is Wove's own doing."""
    status = future.status
    if status == "error":
        error = await future.exception()
        return JobState("failed", reason=_explained(error), grace=_GRACE_SECONDS)
    if status != "finished":
        return None if handle.unwanted else JobState("gone", reason=await _why_cancelled(future), grace=_GRACE_SECONDS)
    if handle.shared and await future.result() != handle.run_id:
        reason = (
            "its delivery_idempotency_key belongs to a task of another weave, or to an earlier attempt that could not "
            "be stopped, which has got the result"
        )
        return JobState("failed", reason=reason, grace=0.0)
    return JobState("finished", grace=_GRACE_SECONDS)


def _explained(error: BaseException | None) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) or "deserialization of the task graph" in said:
        said += ". Is wove-dask installed for the scheduler and for each worker? pip install wove-dask"
    return said if isinstance(error, DeliveryError) else f"{type(error).__name__}: {said}"


async def _why_cancelled(future: Future) -> str:
    try:
        await future.result()
    except (asyncio.CancelledError, Exception) as error:
        return f"{type(error).__name__}: {error}"
    return str(future.status)


def _parts(bodies: Sequence[bytes]) -> Iterator[slice]:
    """Yield slices of what may travel in one graph."""
    begin = size = 0
    for index, body in enumerate(bodies):
        if size and size + len(body) > _LARGEST_GRAPH:
            yield slice(begin, index)
            begin, size = index, 0
        size += len(body)
    yield slice(begin, len(bodies))


def _key(frame: Mapping[str, Any]) -> str:
    name = _NOT_IN_NAMES.sub("_", str(frame.get("task_name") or frame.get("task_id") or "task"))
    return f"wove_{name}-{hashlib.sha256(job_id_of(frame).encode()).hexdigest()[:32]}"
