"""Which worker holds which run, as far as the workers have said. Pure state: no I/O, no clock, no Celery."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wove.integrations.base import JobPhase, JobState

# Workers speak once a second while they hold runs.
LOST_SECONDS = 6.0

News = list[tuple[str, JobState]]

_PHASES: Mapping[str, JobPhase] = {"failed": "failed", "cancelled": "cancelled"}
# Enough to take back what was said too early; old ones matter no more.
_MOST_DOUBTED = 10_000


@dataclass(frozen=True, slots=True)
class RollCall:
    """What one worker says about the runs that it holds.

    Attributes:
        worker: tells it from all others: the node's name and the process id.
        node: its node name, to address it.
        runs: the ids of runs that it executes.
        waiting: those that it has taken from the queue for later.
        ended: runs that have come to an end of which no other event may tell, with the phase and the reason.
        complete: whether `runs` and `waiting` are all that there are.
        leaving: it is shutting down, and will say nothing more about runs that go on.
    """

    worker: str
    node: str
    runs: frozenset[str]
    waiting: frozenset[str] = frozenset()
    ended: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    complete: bool = True
    leaving: bool = False

    @property
    def held(self) -> frozenset[str]:
        """All runs of the worker."""
        return self.runs | self.waiting


def read_roll_call(event: Mapping[str, Any]) -> RollCall:
    """Read a worker's event.

    Raises:
        ValueError: it is not one.
    """
    try:
        return RollCall(
            worker=f"{event['hostname']}/{event['pid']}",
            node=str(event["hostname"]),
            runs=frozenset(map(str, event["runs"])),
            waiting=frozenset(map(str, event["waiting"])),
            ended={str(run): (str(phase), str(reason)) for run, (phase, reason) in event["ended"].items()},
            complete=bool(event["complete"]),
            leaving=bool(event["leaving"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"An event of a worker is malformed: {error!r}") from error


class Sightings:
    """The workers that hold runs, with the last roll call of each.

    Args:
        requeues: whether the broker gives what a dead worker had waiting to another one at once, as AMQP does. Redis
            keeps it for the visibility timeout, an hour by default.
    """

    def __init__(self, *, requeues: bool) -> None:
        self._requeues = requeues
        self._workers: dict[str, tuple[RollCall, float]] = {}
        self._doubted: dict[str, None] = {}

    def heard(self, call: RollCall, *, now: float) -> News:
        """Take a roll call and return what follows from it.

        Args:
            call: what the worker says.
            now: seconds on a monotonic clock.
        """
        before = self._workers.pop(call.worker, None)
        if call.held and not call.leaving:
            self._workers[call.worker] = (call, now)
        news: News = [
            (run_id, JobState(_PHASES.get(phase, "finished"), reason=reason))
            for run_id, (phase, reason) in call.ended.items()
        ]
        if before is not None and call.complete and not call.leaving:
            missing = before[0].runs - call.held - call.ended.keys()
            reason = f"the worker {call.node} is done with it"
            news += [(run_id, JobState("finished", reason=reason)) for run_id in self._held_by_none(missing)]
        found = [run_id for run_id in call.held if run_id in self._doubted]
        return [*self._noted(news), *((run_id, self._found(run_id)) for run_id in found)]

    def lost(self, *, now: float) -> News:
        """Return what follows from the silence of workers."""
        silent = [worker for worker, (_, heard) in self._workers.items() if now - heard > LOST_SECONDS]
        news: News = []
        for worker in silent:
            call, heard = self._workers.pop(worker)
            reason = f"its worker {call.node} has not been heard of for {now - heard:.0f} s"
            gone = call.runs if self._requeues else call.held
            news += [(run_id, JobState("gone", reason=reason)) for run_id in self._held_by_none(gone)]
        return self._noted(news)

    def forget(self) -> None:
        """Forget all workers, because nobody was listening for a while."""
        self._workers.clear()

    def node_of(self, run_id: str) -> str | None:
        """Return the node name of the worker that holds a run, where one has said so."""
        # Copied, because another thread may ask.
        calls = [call for call, _ in list(self._workers.values())]
        return next((call.node for call in calls if run_id in call.held), None)

    def _held_by_none(self, run_ids: frozenset[str]) -> list[str]:
        elsewhere = set[str]().union(*(call.held for call, _ in self._workers.values()))
        return sorted(run_ids - elsewhere)

    def _noted(self, news: News) -> News:
        for run_id, _ in news:
            self._doubted[run_id] = None
            if len(self._doubted) > _MOST_DOUBTED:
                del self._doubted[next(iter(self._doubted))]
        return news

    def _found(self, run_id: str) -> JobState:
        """Take back that a run is over: it has been delivered again, or its worker was only out of reach."""
        del self._doubted[run_id]
        return JobState("running")
