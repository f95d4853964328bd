"""The executor of backend adapters: submits payloads to a task system, whose workers post their events back."""

import asyncio
import copy
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from wove.backend.threads import in_daemon_thread
from wove.backend.types import FINAL_EVENTS, Payload
from wove.environment.adapter_link import AdapterLink, LinkKey, links
from wove.environment.contract import EnvironmentExecutor
from wove.environment.event_queue import EventQueue, Listener
from wove.environment.packing import Packer, Packing
from wove.environment.parting import Parting
from wove.environment.runs import LEASE_SECONDS
from wove.errors import ConfigurationError, DeliveryError, did_you_mean
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.registry import check_adapter_class, check_required_modules, get_backend_adapter_class
from wove.serialization import describe, require_serializer

_COMMANDS = ("run_task", "cancel_task", "shutdown")

# How long a cancel waits for a submission that is on its way.
_SETTLE_SECONDS = 1.0

logger = logging.getLogger("wove")


class _Submitted:
    """One run at the backend.

    Attributes:
        detached: whether its policy is to be left to itself when the weave gives it up.
        task: submits it, and cancels it afterwards if that has been asked meanwhile.
        accepted: whether the backend has taken it; `submission` is the handle then.
        cancel_frame: the command to cancel it, once that has come.
    """

    __slots__ = ("accepted", "cancel_frame", "detached", "run_id", "submission", "task", "task_id")

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self.run_id: str = frame["run_id"]
        self.task_id = frame.get("task_id")
        self.detached = (frame.get("delivery") or {}).get("delivery_orphan_policy") == "detach"
        self.task: asyncio.Task[None] | None = None
        self.accepted = False
        self.submission: Any = None
        self.cancel_frame: dict[str, Any] | None = None

    def is_unwanted(self) -> bool:
        """Tell whether it is to be cancelled."""
        return self.cancel_frame is not None


class BackendAdapterEnvironmentExecutor(EnvironmentExecutor):
    """Submits task payloads to a backend adapter and receives its workers' events over the callback receiver.

    An instance in a configuration serves concurrent weaves. The adapter and the receiver behind it are shared by all
    environments and weaves with an equal ``executor_config``; they are closed half a minute after their last use. Used
    on Wove's background loop.

    ``executor_config`` keys: ``callback_host``, ``callback_port``, ``callback_url``, ``callback_token``,
    ``callback_security``, ``callback_max_bytes``, ``callback_server`` and ``results`` configure the receiver;
    ``max_payload_bytes`` lowers the adapter's limit, above which a payload waits here for its worker to fetch it;
    ``dead_job_grace`` is the time in seconds that a final event may take after the backend has said that the job is
    over. The adapter gets all of them, along with its own.

    Args:
        name: the executor name, which payloads carry as ``adapter``.
        adapter_class: the adapter; found by its name among the installed ones if omitted.
        required_modules: import names to check in place of the class's own.
    """

    reports_submission = reusable = begins = listens = True

    def __init__(
        self,
        name: str,
        adapter_class: type[BackendAdapter] | None = None,
        required_modules: Sequence[str] | None = None,
    ) -> None:
        self._name = name
        self._adapter_class = adapter_class
        self._required_modules = required_modules
        self._reset()

    def _reset(self) -> None:
        self._key: LinkKey | None = None
        self._link: AdapterLink | None = None
        self._packer: Packer | None = None
        self._parting: Parting | None = None
        self._own_limit: int | None = None
        self._runs: dict[str, _Submitted] = {}
        self._events = EventQueue()

    def session_copy(self) -> "BackendAdapterEnvironmentExecutor":
        """Return an executor of the same adapter that is not started."""
        fresh = copy.copy(self)
        fresh._reset()
        return fresh

    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        require_serializer(f"Environment {environment_name!r} (executor {self._name!r})")
        self._reset()
        try:
            adapter_class = await self._usable_class(environment_name)
            self._own_limit = _limit_in(environment_config)
            key = LinkKey(self._name, adapter_class, config=environment_config, run_config=run_config)
            link = await links.acquire(key)
        except ConfigurationError as error:
            # Its message is a part of the located one; what led to it is shown all the same.
            raise _located(error, environment_name) from error.__cause__
        if link.failure is not None:
            links.release(key, at_once=True)
            raise link.failure
        link.on_failure(self._events.fail)
        self._key, self._link = key, link
        self.renew()

    async def _usable_class(self, environment: str) -> type[BackendAdapter]:
        if self._adapter_class is None:
            found = await in_daemon_thread(lambda: get_backend_adapter_class(self._name, environment=environment))
        else:
            where = f"Environment {environment!r}: executor {self._name!r}"
            found = check_adapter_class(self._adapter_class, where=where)
        required = found.required_modules if self._required_modules is None else self._required_modules
        # Looking for a missing one may import its parents, and the receiver brings a web server along.
        if any(module not in sys.modules for module in required):
            await in_daemon_thread(
                lambda: check_required_modules(found, environment=environment, required_modules=required)
            )
        if "wove.backend.receiver" not in sys.modules:
            await in_daemon_thread(import_module, "wove.backend.receiver")
        return found

    async def send(self, frame: dict[str, Any]) -> None:
        if self._link is None:
            raise RuntimeError(f"send() of the executor {self._name!r} was called before start().")
        match frame.get("type"):
            case "run_task":
                await self._run(frame, self._link)
            case "cancel_task":
                await self._cancel(frame, self._link)
            case "shutdown":
                self._close_runs()
            case kind:
                raise ValueError(
                    f"No command is of type {kind!r}.{did_you_mean(str(kind), _COMMANDS)} "
                    f"Commands: {', '.join(_COMMANDS)}."
                )

    def begin(self, frame: dict[str, Any]) -> bool:
        """Submit a ``run_task`` as `send` does, or begin to; False where only `send` can, because that takes longer."""
        link, packer = self._link, self._packer
        if link is None or packer is None or not (self._parting is None or self._parting.leaves(frame)):
            return False
        packed = packer.pack_now(frame, lease=_lease(frame), limit=self._limit(link))
        if packed is None:
            return False
        self._open(frame, *packed, link)
        return True

    async def recv(self) -> dict[str, Any]:
        return await self._events.get()

    def listen(self, listener: Listener) -> None:
        """Offer each event to a listener before `recv` returns it, until the executor is stopped."""
        self._events.listen(listener)

    async def stop(self) -> None:
        self._events.listen(None)
        if self._link is None or self._key is None:
            return
        self._close_runs(spare_detached=True)
        if self._parting is not None:
            self._parting.close()
        self._link.off_failure(self._events.fail)
        links.release(self._key, at_once=self._link.failure is not None)
        self._link = self._key = None

    def renew(self) -> None:
        """Forget the pickles of callables and arguments, which may change from one weave to the next."""
        if self._link is None:
            return
        if self._parting is not None:
            self._parting.close()
        self._packer = Packer(_packing(self._name, self._link))
        adapter = self._link.adapter
        self._parting = Parting() if adapter.carries_apart or adapter.claims_apart else None

    def close_run(self, run_id: str) -> None:
        """Accept no more events of a run; its worker is told that nobody waits any more. Idempotent."""
        if self._runs.pop(run_id, None) is not None and self._link is not None:
            self._link.detach(run_id)
            self._link.receiver.close_run(run_id)

    @property
    def poll_interval(self) -> float | None:
        """Seconds between two questions for the state of jobs; None where the adapter cannot be asked."""
        if self._link is None or type(self._link.adapter).poll is BackendAdapter.poll:
            return None
        return self._link.adapter.poll_interval

    async def probe(self, run_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Return what the backend says about runs; those it says nothing about are left out."""
        known = (self._runs.get(run_id) for run_id in run_ids)
        submissions = {run.run_id: run.submission for run in known if run is not None and run.accepted}
        if not submissions or self._link is None:
            return {}
        link = self._link
        states = await link.adapter.poll(submissions)
        left = {run_id: await link.unsettled(run_id, state) for run_id, state in states.items()}
        return {run_id: state for run_id, state in left.items() if state is not None}

    async def _run(self, frame: dict[str, Any], link: AdapterLink) -> None:
        if self._packer is None:
            return
        if self._parting is not None:
            frame = await self._parting.part(frame)
        packed = await self._packer.pack(frame, lease=_lease(frame), limit=self._limit(link))
        self._open(frame, *packed, link)

    def _limit(self, link: AdapterLink) -> int | None:
        limits = [limit for limit in (self._own_limit, link.adapter.max_payload_bytes) if limit is not None]
        return min(limits, default=None)

    def _open(self, frame: dict[str, Any], payload: Payload, body: bytes | None, link: AdapterLink) -> None:
        """Let the events of a run come in, and submit it."""
        run = _Submitted(frame)
        key = link.receiver.open_run(
            run.run_id,
            lease=_lease(frame),
            body=body,
            exclusive=link.adapter.exclusive_runs,
            apart={each.key: each.data for each in frame.get("apart", ())} if link.adapter.claims_apart else None,
        )
        if key is not None:
            payload["callback_key"] = key
        self._runs[run.run_id] = run
        link.attach(run.run_id, self._deliver)
        try:
            run.submission = link.submit_now({**payload}, frame)
        except Exception as failure:  # An adapter may raise anything.
            self._refuse(run, failure)
            return
        if run.submission is not None:
            self._accept(run)
            return
        # The link's task: a submission that is stuck may end after the weave that wanted it, and is cancelled then.
        run.task = link.spawn(self._submit(run, payload, frame, link))

    async def _submit(self, run: _Submitted, payload: Payload, frame: dict[str, Any], link: AdapterLink) -> None:
        if run.is_unwanted():
            return
        try:
            run.submission = await link.submit({**payload}, frame)
        except asyncio.CancelledError as cancelled:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            error = DeliveryError(f"The adapter {self._name!r} cancelled its own submit().")
            error.__cause__ = cancelled
            self._refuse(run, error)
        except Exception as failure:  # An adapter may raise anything.
            self._refuse(run, failure)
        else:
            self._accept(run)
            if run.is_unwanted():
                await self._cancel_late(run, link)

    def _accept(self, run: _Submitted) -> None:
        run.accepted = True
        self._events.put({"type": "submitted", "run_id": run.run_id, "task_id": run.task_id})

    def _refuse(self, run: _Submitted, error: Exception) -> None:
        self._deliver({"type": "task_error", "run_id": run.run_id, "task_id": run.task_id, "exception": error})

    def _deliver(self, event: dict[str, Any]) -> None:
        self._events.put(event)
        if event["type"] in FINAL_EVENTS:
            self.close_run(event["run_id"])

    async def _cancel_late(self, run: _Submitted, link: AdapterLink) -> None:
        try:
            await link.adapter.cancel(run.run_id, run.submission, run.cancel_frame or {})
        except Exception as error:  # An adapter may raise anything.
            logger.warning("Cancelling run %s failed (%s); it may go on.", run.run_id, describe(error))

    async def _cancel(self, frame: dict[str, Any], link: AdapterLink) -> None:
        run = self._runs.get(frame["run_id"])
        if run is None or run.is_unwanted():
            return
        run.cancel_frame = frame
        link.receiver.request_cancel(run.run_id)
        if run.accepted:
            await link.adapter.cancel(run.run_id, run.submission, frame)
        elif run.task is not None:
            # Its submission is on the way, and the cancel follows it; whoever is stuck there must hold up nobody here.
            await asyncio.wait([run.task], timeout=_SETTLE_SECONDS)

    def _close_runs(self, *, spare_detached: bool = False) -> None:
        for run in list(self._runs.values()):
            if not (spare_detached and run.detached):
                self.close_run(run.run_id)
            elif self._link is not None:
                # Its worker goes on being answered for as long as the link lives, and nobody reads what it says.
                self._link.detach(run.run_id)


def _lease(frame: Mapping[str, Any]) -> float:
    return (frame.get("delivery") or {}).get("delivery_heartbeat_seconds") or LEASE_SECONDS


def _limit_in(config: Mapping[str, Any]) -> int | None:
    limit = config.get("max_payload_bytes")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigurationError(f"max_payload_bytes must be a whole number of bytes of at least 1, not {limit!r}.")
    return limit


def _packing(name: str, link: AdapterLink) -> Packing:
    settings = link.receiver.settings
    shares = settings.security not in (None, "signed")
    return Packing(
        adapter=name,
        callback_url=link.receiver.callback_url,
        results="pickle" if settings.pickles else "json",
        security=settings.security if shares else None,
        secret=settings.secret if shares else None,
        lists_apart=link.adapter.claims_apart,
    )


def _located(error: ConfigurationError, environment: str) -> ConfigurationError:
    """Return a configuration error that names the environment; its class stays."""
    where = f"Environment {environment!r}"
    if where in str(error):
        return error
    located = copy.copy(error)
    located.args = (f"{where}: {error}", *error.args[1:])
    return located
