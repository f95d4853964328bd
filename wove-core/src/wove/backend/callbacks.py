"""Which token leads to which runs: the receiver's memory, and every decision about an event but how it is read.

The table belongs to the process, not to a server, so that an event finds its run through whichever server it arrives
at: one of Wove's own, or the application's.
"""

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wove.backend.callback_settings import CallbackSettings
from wove.backend.frames import check_event_type, deserialize_event
from wove.backend.inbox import Inbox
from wove.backend.runs import Arrival, RunState, closed, step, with_cancel
from wove.backend.signing import derive_key
from wove.errors import WoveError

# Asked of the workers of runs that nobody has announced, seconds.
DEFAULT_LEASE = 30.0
RUN_OVER = "This run is over, or unknown here."
_FINISHED_REMEMBERED = 4096
_UNANNOUNCED_REMEMBERED = 10_000
_GONE_REMEMBERED = 1024


class Refusal(WoveError):
    """An event is not accepted. The message is for the worker's log and holds no secret.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Run:
    """A run that events may arrive for. Changed on the background loop only; other threads read."""

    __slots__ = ("apart", "claim", "inbox", "key", "settings", "state")

    def __init__(
        self, run_id: str, inbox: Inbox, settings: CallbackSettings, *, lease: float, exclusive: bool = False
    ) -> None:
        self.state = RunState(lease, signed_only=not settings.takes_unsigned, exclusive=exclusive)
        self.inbox = inbox
        self.settings = settings
        self.key = derive_key(settings.secret, run_id)
        self.claim: bytes | None = None
        self.apart: Mapping[str, bytes] = {}

    @property
    def over(self) -> bool:
        """Whether no more events are accepted."""
        return self.state.phase == "over"

    def finish(self) -> None:
        """Accept nothing more for the run, and drop what it kept for its worker."""
        self.state = closed(self.state)
        self.claim = None
        self.apart = {}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to an event that is not refused.

    Attributes:
        run: the run that the event is about.
        deliver: whether the event is new; a repetition has no effect.
    """

    run: Run
    deliver: bool

    def frame(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event's frame with its Python values: only now is anything unpickled. Blocks for large values.

        A start or a heartbeat that comes with a lease carries it as ``lease``, seconds.
        """
        frame = deserialize_event(payload, pickles=self.run.settings.pickles)
        if self.run.state.term and frame["type"] in ("task_started", "heartbeat"):
            frame["lease"] = self.run.state.term
        return frame


class Callback:
    """The runs behind one token. Sessions share it where a configuration gives the token.

    Changed on the background loop only; `find`, `takes_unsigned` and `max_bytes` may be read from any thread.

    Attributes:
        takes_unsigned: whether an unsigned event could belong to one of the runs.
        max_bytes: the largest event that one of the runs takes.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.takes_unsigned = False
        self.max_bytes = 0
        self._users: dict[Inbox, CallbackSettings] = {}
        self._any_run: Inbox | None = None
        self._runs: dict[str, Run] = {}
        self._finished: OrderedDict[str, Run] = OrderedDict()
        self._unannounced: OrderedDict[str, Run] = OrderedDict()

    def join(self, inbox: Inbox, settings: CallbackSettings, *, any_run: bool = False) -> None:
        """Add a session; one with `any_run` also gets the events of runs that nobody has announced."""
        self._users[inbox] = settings
        if any_run:
            self._any_run = inbox
        self._summarize()

    def leave(self, inbox: Inbox) -> bool:
        """Close a session's runs and remove it; return whether it was the last one."""
        for run_id in [run_id for run_id, run in self._runs.items() if run.inbox is inbox]:
            self.close(run_id)
        self._users.pop(inbox, None)
        if self._any_run is inbox:
            self._any_run = None
            self._unannounced.clear()
        self._summarize()
        return not self._users

    def open(
        self,
        run_id: str,
        inbox: Inbox,
        *,
        lease: float,
        claim: bytes | None,
        exclusive: bool = False,
        apart: Mapping[str, bytes] | None = None,
    ) -> Run:
        """Expect events of a run.

        Raises:
            ValueError: the run is open already, or was.
        """
        if self.find(run_id) is not None:
            raise ValueError(f"Run {run_id!r} was opened before; every attempt needs a run id of its own.")
        run = Run(run_id, inbox, self._users[inbox], lease=lease, exclusive=exclusive)
        run.claim = claim
        run.apart = apart or {}
        self._runs[run_id] = run
        return run

    def request_cancel(self, run_id: str) -> None:
        """Tell the run's worker to stop in the answer to its next event. Does nothing for a run that is not open."""
        run = self._runs.get(run_id)
        if run is not None:
            run.state = with_cancel(run.state)

    def close(self, run_id: str) -> None:
        """Accept no more events of a run. Idempotent."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.finish()
            _remember(self._finished, run_id, run, most=_FINISHED_REMEMBERED)

    def find(self, run_id: str) -> Run | None:
        """Return the run with this id, open or remembered, or None."""
        return self._runs.get(run_id) or self._finished.get(run_id) or self._unannounced.get(run_id)

    def accept(self, payload: Mapping[str, Any], arrival: Arrival, *, size: int) -> Acceptance:
        """Decide on an event; one that is accepted changes its run. Nothing in it is unpickled.

        Args:
            payload: the event, checked by `check_frame`.
            arrival: what is known about it otherwise.
            size: its bytes.

        Raises:
            Refusal: it is not accepted.
        """
        run = self._find_or_adopt(payload["run_id"])
        if run is None:
            raise Refusal(410, RUN_OVER)
        if not run.over:
            _check_welcome(run, payload["type"], size)
        taken = step(run.state, arrival)
        run.state = taken.state
        if taken.status != 200:
            raise Refusal(taken.status, _REASONS[taken.status])
        return Acceptance(run, taken.deliver)

    def _find_or_adopt(self, run_id: str) -> Run | None:
        run = self.find(run_id)
        if run is None and self._any_run is not None:
            run = Run(run_id, self._any_run, self._users[self._any_run], lease=DEFAULT_LEASE)
            _remember(self._unannounced, run_id, run, most=_UNANNOUNCED_REMEMBERED)
        return run

    def _summarize(self) -> None:
        self.takes_unsigned = any(settings.takes_unsigned for settings in self._users.values())
        self.max_bytes = max((settings.max_bytes for settings in self._users.values()), default=0)


_REASONS = {
    401: "Events of this run must be signed.",
    409: "Another worker executes this run.",
    410: RUN_OVER,
}


def _check_welcome(run: Run, kind: str, size: int) -> None:
    try:
        check_event_type(kind)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if size > run.settings.max_bytes:
        raise Refusal(413, too_large(size, run.settings.max_bytes))
    if run.inbox.full:
        raise Refusal(503, "The weave cannot keep up with its events; try again.")


def too_large(size: int | None, limit: int) -> str:
    """Return the reason for refusing an event of a size, None where it is not known."""
    measured = f"has {size:,} bytes" if size is not None else "is larger than allowed"
    return f"The event {measured}; callback_max_bytes is {limit:,}."


def _remember(memory: "OrderedDict[str, Run]", run_id: str, run: Run, *, most: int) -> None:
    memory[run_id] = run
    if len(memory) > most:
        memory.popitem(last=False)


class CallbackTable:
    """The callbacks of a process by token. Looking one up takes the same time for every wrong token."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._callbacks: dict[bytes, Callback] = {}
        self._gone: OrderedDict[bytes, None] = OrderedDict()

    def enter(self, token: str) -> Callback:
        """Return the callback of a token, made if need be."""
        digest = self._digest(token)
        self._gone.pop(digest, None)
        callback = self._callbacks.get(digest)
        if callback is None:
            callback = self._callbacks[digest] = Callback(token)
        return callback

    def remove(self, token: str) -> None:
        """Forget a callback that nobody uses; for a while its workers are told that their runs are over."""
        digest = self._digest(token)
        if self._callbacks.pop(digest, None) is not None:
            self._gone[digest] = None
            if len(self._gone) > _GONE_REMEMBERED:
                self._gone.popitem(last=False)

    def find(self, token: str) -> Callback:
        """Return the callback of a token.

        Raises:
            Refusal: there is none.
        """
        # A dict compares digests whose bytes nobody outside can choose, so the time it takes tells nothing of a token.
        digest = self._digest(token)
        callback = self._callbacks.get(digest)
        if callback is not None and hmac.compare_digest(_bytes(callback.token), _bytes(token)):
            return callback
        if digest in self._gone:
            raise Refusal(410, "The weave that waited here is over.")
        raise Refusal(404, "Nothing is here.")

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(_bytes(token), key=self._salt, digest_size=16).digest()


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


_table = CallbackTable()


def callback_table() -> CallbackTable:
    """Return the table of this process."""
    return _table


def _forget_after_fork() -> None:
    # The parent's weaves wait in the parent.
    global _table
    _table = CallbackTable()


os.register_at_fork(after_in_child=_forget_after_fork)
