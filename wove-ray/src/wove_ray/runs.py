"""The runs that Ray has: submitted, cancelled, and heard of again when they end. Blocking, from any thread."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import ray

from wove.backend.apart import Apart
from wove.errors import DeliveryError
from wove_ray import session
from wove_ray.remote import RemoteRun
from wove_ray.resources import misfit
from wove_ray.settings import Settings

# A session of Ray Client says by itself that it is lost.
_CLIENT = "client"
# For how long nodes that can run a task are taken for granted, and a session of Ray Client.
_TRUST_SECONDS = 10.0

Ended = Callable[["Submitted"], None]
# A payload, and the arguments that travel apart from it.
Submission = tuple[Mapping[str, Any], Sequence[Apart]]


class Submitted:
    """The handle of a run. Its attributes but `ref` belong to the adapter's loop.

    Attributes:
        run_id: the run.
        since: when it was submitted, on the monotonic clock.
        ref: Ray's reference to the task's end; None when that has come.
        begun: whether a worker has been heard of.
        unwanted: whether the run is to be cancelled.
        watched: whether Ray has been asked about the task's end some time after it was submitted.
        told: whether Ray is to tell of it anyway.
        error: what Ray raises in place of the task's value, when it has ended.
        outcome: the task's value.
        session: the session that it was submitted in.
    """

    __slots__ = ("begun", "error", "outcome", "ref", "run_id", "session", "since", "told", "unwanted", "watched")

    def __init__(self, run_id: str, ref: Any, *, session: str) -> None:
        self.run_id = run_id
        self.session = session
        self.since = time.monotonic()
        self.ref = ref
        self.begun = False
        self.unwanted = False
        self.watched = False
        self.told = False
        self.error: BaseException | None = None
        self.outcome: bytes | None = None

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.ref is None

    def __repr__(self) -> str:
        return f"<Ray task of run {self.run_id}>"


class Runs:
    """The runs of one environment.

    Args:
        settings: how they are submitted.
        ended: is told of the end of each, on a thread of Ray's.

    Raises:
        ConfigurationError: Ray refuses the settings, or there is no session and none can be made.
        ConnectionError: the cluster cannot be reached.
    """

    def __init__(self, settings: Settings, ended: Ended) -> None:
        self._settings = settings
        self._ended = ended
        self._remote = RemoteRun(settings.remote_options)
        self._fits_until = 0.0
        self._has_submitted = False
        # Ray forgets an object when neither we nor a task refers to it any more.
        self._stored: WeakKeyDictionary[Apart, Any] = WeakKeyDictionary()
        self._storing = threading.Lock()
        self._rejoining = threading.Lock()
        self.is_client = self._joined = False
        self._join()

    @property
    def is_ready(self) -> bool:
        """Whether submitting asks nobody: Ray knows the function, and a moment ago some node could run a task."""
        return self._knows_nodes and self._has_submitted and ray.is_initialized()

    @property
    def _knows_nodes(self) -> bool:
        return time.monotonic() < self._fits_until

    def store(self, arguments: Iterable[Apart]) -> None:
        """Put arguments into Ray's store, each once for as long as somebody wants it.

        Raises:
            ConnectionError: the session is lost and cannot be made again.
        """
        self._rejoin()
        with self._storing, self._doubting():
            for argument in arguments:
                if argument not in self._stored:
                    self._stored[argument] = ray.put(argument.data)

    def submit(self, submissions: Sequence[Submission], *, returns: int = 0) -> list[Submitted]:
        """Submit payloads. Arguments that are not in the store yet are put there.

        Args:
            submissions: the payloads.
            returns: bytes up to which outcomes are to come back as the values of tasks, whose ends Ray then tells from
                the beginning.

        Raises:
            DeliveryError: no node can run them, and they shall not wait for one.
            ConnectionError: the session is lost and cannot be made again.
        """
        arguments = [argument for _, apart in submissions for argument in apart]
        if arguments:
            self.store(arguments)
        else:
            self._rejoin()
        if not self._knows_nodes:
            self._check_nodes()
        here = self._session()
        with self._doubting():
            submitted = [self._submit(*submission, session=here, returns=returns) for submission in submissions]
            self._has_submitted = True
            if self.is_client:
                # Ray Client sends in the background; when the last one has its name, all have arrived.
                submitted[-1].ref.hex()
        return submitted

    def watch(self, runs: Iterable[Submitted]) -> None:
        """Let Ray tell when tasks end.

        Raises:
            Exception: the session that they ran in has been closed.
        """
        if not ray.is_initialized():
            raise ConnectionError("the session with Ray has been closed, and its tasks have ended with it")
        for run in runs:
            if not run.told:
                self._watch(run, run.ref)

    def lost(self, runs: Iterable[Submitted]) -> list[Submitted]:
        """Return the runs whose session has been closed: with it, Ray has ended their tasks, and says nothing of them.

        Asks nobody.
        """
        try:
            there = self._session() if ray.is_initialized() else None
        except Exception:  # It is being closed right now, by another thread.
            there = None
        return [run for run in runs if run.session != there]

    def cancel(self, runs: Iterable[Submitted], *, force: bool) -> None:
        """Interrupt tasks, or kill the processes that execute them. Those that wait are withdrawn."""
        for run in runs:
            ref = run.ref
            if ref is not None:
                ray.cancel(ref, force=force)

    def misfit(self) -> str | None:
        """Say why no node can run a task, or return None if one can."""
        return misfit(self._settings.remote_options, ray.nodes())

    def close(self) -> None:
        """Leave the session. Idempotent."""
        if self._joined:
            self._joined = False
            session.leave()

    def _join(self) -> None:
        self.is_client = session.join(self._settings)
        self._joined = True

    def _session(self) -> str:
        """Return what tells a driver's session from an earlier or a later one, which the program may have made."""
        return _CLIENT if self.is_client else str(ray.get_runtime_context().get_job_id())

    def _submit(
        self, payload: Mapping[str, Any], arguments: Iterable[Apart], *, session: str, returns: int
    ) -> Submitted:
        stored = {argument.key: self._stored[argument] for argument in arguments}
        ref = self._remote.submit(payload, stored, returns=returns)
        run = Submitted(str(payload["run_id"]), ref, session=session)
        if returns:
            run.told = True
            self._watch(run, run.ref)
        return run

    def _watch(self, run: Submitted, ref: Any) -> None:
        if ref is not None:
            ref.future().add_done_callback(partial(self._done, run))

    def _done(self, run: Submitted, future: Any) -> None:
        run.error = future.exception()
        if run.error is None:
            run.outcome = future.result()
        run.ref = None
        self._ended(run)

    def _check_nodes(self) -> None:
        why = None if self._settings.queue_timeout is not None else self.misfit()
        if why is not None:
            raise DeliveryError(
                f"Ray would never run it: {why}. Change remote_options; or, if the cluster will get such a node, set "
                "queue_timeout to the seconds that a task may wait for it."
            )
        self._fits_until = time.monotonic() + _TRUST_SECONDS

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """After an error, take nothing for granted."""
        try:
            yield
        except Exception:
            self._fits_until = 0.0
            raise

    def _rejoin(self) -> None:
        """Make the session again that Ray Client has lost, or that the program has closed."""
        if self.is_client and not self._knows_nodes:
            session.check()
        if ray.is_initialized():
            return
        with self._rejoining:
            if not ray.is_initialized():
                self._stored.clear()
                self._has_submitted = False
                self.close()
                self._join()
