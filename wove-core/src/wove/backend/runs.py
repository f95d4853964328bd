"""The life of one run as its owner sees it: submitted, started, over. Pure state: no I/O, no clock, no pickles.

`step` takes a run's state and an authenticated event, and says what becomes of the state, what the worker is answered,
and whether the event is passed on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wove.backend.types import FINAL_EVENTS

Phase = Literal["submitted", "started", "over"]

# An event may arrive this many events late and still be told from a repetition (the scheme of RFC 4303, section 3.4.3).
WINDOW = 256
# A broker that keeps redelivering a job shows a new worker each time; the oldest ones are forgotten.
_WORKERS_REMEMBERED = 32
_ANONYMOUS = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of an event before its values are looked at.

    Attributes:
        kind: the event's type.
        now: seconds on a monotonic clock.
        identity: the same for every repetition of the event, and for no other event.
        worker: the id of the worker that signed it; None for an unsigned event.
        sequence: the signed number of the event among the worker's events about this run.
        lease: seconds after which the worker must have been heard again, where the event announces them.
    """

    kind: str
    now: float
    identity: str
    worker: str | None = None
    sequence: int = 0
    lease: float | None = None


@dataclass(frozen=True, slots=True)
class SeenSequences:
    """The sequences of one worker that have been accepted: the highest one, and which of the `WINDOW` up to it."""

    highest: int = 0
    mask: int = 0

    def __contains__(self, sequence: int) -> bool:
        behind = self.highest - sequence
        return behind >= WINDOW or (behind >= 0 and bool(self.mask >> behind & 1))

    def with_one(self, sequence: int) -> "SeenSequences":
        """Return the window with one more sequence in it."""
        ahead = sequence - self.highest
        if ahead <= 0:
            return SeenSequences(self.highest, self.mask | 1 << -ahead if -ahead < WINDOW else self.mask)
        mask = 1 if ahead >= WINDOW else (self.mask << ahead | 1) & ((1 << WINDOW) - 1)
        return SeenSequences(sequence, mask)


@dataclass(frozen=True, slots=True)
class RunState:
    """One run.

    Attributes:
        lease: seconds between signs of life that are asked of workers.
        signed_only: unsigned events are refused; from the first signed one on.
        exclusive: whoever has begun to execute the run is the only one that ever may, also when its lease has ended.
        holder: the worker that executes the run, while its lease lasts the only one that may.
        term: seconds that each sign of life extends the lease by; 0 where none was announced.
        expires: when the lease ends, on the clock of `Arrival.now`.
        cancel: the owner wants the run to stop; told to the worker in the answer to its next event.
        final: the identity of the final event that was accepted.
        seen: for each signing worker, which of its events were accepted.
    """

    lease: float
    signed_only: bool = False
    exclusive: bool = False
    phase: Phase = "submitted"
    holder: str | None = None
    term: float = 0.0
    expires: float = 0.0
    cancel: bool = False
    final: str | None = None
    seen: Mapping[str, SeenSequences] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of an event.

    Attributes:
        state: the run's state from now on.
        status: the HTTP status of the answer. 200: accepted, or a repetition. 401: must be signed. 409: another worker
            executes the run. 410: the run is over.
        deliver: whether the event is new and goes to the run's owner; False for every status but 200.
    """

    state: RunState
    status: int
    deliver: bool


def step(state: RunState, arrival: Arrival) -> Step:
    """Decide on one event. The first final event wins; whatever comes later changes nothing."""
    if state.phase == "over":
        return Step(state, 200 if arrival.identity == state.final else 410, False)
    if arrival.worker is None and state.signed_only:
        return Step(state, 401, False)
    final = arrival.kind in FINAL_EVENTS
    # While the run is open no final event has been accepted, so one that is behind the window is late, not repeated.
    if not final and _is_repeated(state, arrival):
        return Step(state, 200, False)
    if arrival.kind in ("task_started", "heartbeat") and _is_held_by_another(state, arrival):
        return Step(state, 409, False)
    # One copy of the state for each event: most of the receiver's work is small things like this.
    changes: dict[str, Any] = {"phase": "over", "final": arrival.identity} if final else _alive(state, arrival)
    if arrival.worker is not None:
        changes["signed_only"] = True
        changes["seen"] = _seen(state, arrival, arrival.worker)
    return Step(replace(state, **changes), 200, True)


def with_cancel(state: RunState) -> RunState:
    """Return the state in which the next answer tells the worker to stop."""
    return replace(state, cancel=True)


def closed(state: RunState) -> RunState:
    """Return the state of a run that its owner has given up or has got its outcome of."""
    return state if state.phase == "over" else replace(state, phase="over")


def _is_repeated(state: RunState, arrival: Arrival) -> bool:
    seen = state.seen.get(arrival.worker) if arrival.worker is not None else None
    return seen is not None and arrival.sequence in seen


def _is_held_by_another(state: RunState, arrival: Arrival) -> bool:
    if state.holder is None or state.holder == (arrival.worker or _ANONYMOUS):
        return False
    return state.exclusive or state.expires > arrival.now


def _seen(state: RunState, arrival: Arrival, worker: str) -> Mapping[str, SeenSequences]:
    seen = dict(state.seen)
    seen[worker] = seen.pop(worker, SeenSequences()).with_one(arrival.sequence)
    if len(seen) > _WORKERS_REMEMBERED:
        del seen[next(iter(seen))]
    return seen


def _alive(state: RunState, arrival: Arrival) -> dict[str, Any]:
    worker = arrival.worker or _ANONYMOUS
    if arrival.kind == "log":
        return {"expires": arrival.now + state.term} if worker == state.holder else {}
    term = arrival.lease
    if term is None and arrival.kind == "heartbeat":
        # The start event with its announcement may have been lost; only Wove's own workers sign, and they beat.
        term = state.term if worker == state.holder else (state.lease if arrival.worker is not None else 0.0)
    term = term or 0.0
    return {"phase": "started", "holder": worker, "term": term, "expires": arrival.now + term}
