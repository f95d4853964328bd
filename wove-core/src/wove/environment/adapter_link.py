"""A link: one started backend adapter with the receiver's session that its workers report to.

Links outlive weaves: environments with the same configuration share one, so that a client connects once, and it is
closed when nobody has used it for a while.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wove.backend.callbacks import Refusal
from wove.backend.sharing import SharedResources
from wove.environment.fingerprint import fingerprint
from wove.environment.submitting import Submitter
from wove.errors import DeliveryOrphanedError
from wove.integrations.base import BackendAdapter, JobState
from wove.serialization import describe

if TYPE_CHECKING:
    from wove.backend.receiver import ReceiverSession

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

Inbox = Callable[[dict[str, Any]], None]

logger = logging.getLogger("wove")


class LinkKey:
    """A configuration of an adapter; equal for equal configurations, where live objects in it must be the same ones.

    Args:
        name: the adapter's name.
        adapter_class: its class.
        config: the environment's ``executor_config``.
        run_config: the effective settings of the environment. Those of the weave that opens the link are what the
            adapter gets; they do not tell links apart.
    """

    __slots__ = ("_identity", "adapter_class", "config", "name", "run_config")

    def __init__(
        self,
        name: str,
        adapter_class: type[BackendAdapter],
        *,
        config: Mapping[str, Any],
        run_config: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.adapter_class = adapter_class
        self.config = config
        self.run_config = run_config
        self._identity: Hashable = (name, adapter_class, fingerprint(config))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinkKey) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


class AdapterLink:
    """Routes the events of runs, and what the adapter says of them, to the executors that wait. Background loop only.

    Attributes:
        adapter: the started adapter.
        receiver: where its workers report.
        failure: why the link is broken, or None.
    """

    def __init__(self, adapter: BackendAdapter, receiver: "ReceiverSession") -> None:
        self.adapter = adapter
        self.receiver = receiver
        self.failure: Exception | None = None
        self._submitter = Submitter(adapter)
        self._listens = type(adapter).heard is not BackendAdapter.heard
        self._inboxes: dict[str, Inbox] = {}
        self._broken: set[Callable[[Exception], None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        receiver.listen(self._take)
        self._receiving = self.spawn(self._wait_for_end())
        self._watching: asyncio.Task[None] | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something that may outlive the executor which wants it, and ends with the link."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def attach(self, run_id: str, inbox: Inbox) -> None:
        """Pass everything about a run to an inbox."""
        self._inboxes[run_id] = inbox
        if self._watching is None and type(self.adapter).watch is not BackendAdapter.watch:
            self._watching = self.spawn(self._watch())

    def detach(self, run_id: str) -> None:
        """Drop everything about a run from now on."""
        self._inboxes.pop(run_id, None)

    def on_failure(self, listener: Callable[[Exception], None]) -> None:
        """Tell a listener when the link breaks."""
        self._broken.add(listener)

    def off_failure(self, listener: Callable[[Exception], None]) -> None:
        """Take back `on_failure`."""
        self._broken.discard(listener)

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Submit a payload without waiting and return the adapter's handle of it; None where `submit` has to."""
        return self._submitter.submit_now(payload, frame)

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Submit a payload and return the adapter's handle of it."""
        return await self._submitter.submit(payload, frame)

    async def unsettled(self, run_id: str, state: JobState) -> JobState | None:
        """Take the outcome in a state, as if its event had been posted; return what is left to tell, if anything.

        Where the outcome is refused, that is the reason why no final event will come.
        """
        if state.outcome is None:
            return state
        try:
            await self.receiver.take_outcome(run_id, state.outcome)
        except Refusal as refusal:
            reason = f"{state.reason}; " if state.reason else ""
            return replace(state, outcome=None, reason=f"{reason}its outcome is refused: {refusal}")
        return None

    async def close(self) -> None:
        """Close adapter and receiver session, each whether or not the other one can be closed."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)
        await self._submitter.close()
        try:
            await self.adapter.close()
        except Exception as error:  # An adapter may raise anything.
            logger.warning("Closing the adapter %r failed: %s", self.adapter.name, describe(error))
        finally:
            await self.receiver.close()

    async def _wait_for_end(self) -> None:
        try:
            await self.receiver.recv()
        except RuntimeError as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        self.failure = error
        for listener in list(self._broken):
            listener(error)

    def _take(self, event: dict[str, Any]) -> None:
        try:
            self._route(event)
        except Exception as error:  # An adapter may raise anything.
            self._break(error)

    def _route(self, event: dict[str, Any]) -> None:
        inbox = self._inboxes.get(event["run_id"])
        if inbox is not None:
            inbox(event)
        if self._listens:
            self.adapter.heard(event["run_id"], event["type"])

    async def _watch(self) -> None:
        """Pass on what the adapter says about jobs; start it again whenever it ends."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async for run_id, state in self.adapter.watch():
                    pause = _FIRST_PAUSE
                    left = await self.unsettled(run_id, state)
                    if left is not None:
                        self._tell(run_id, left)
            except Exception as error:  # An adapter may raise anything.
                level = logging.WARNING if pause == _FIRST_PAUSE else logging.DEBUG
                logger.log(level, "Watching the jobs of adapter %r failed: %s", self.adapter.name, describe(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _tell(self, run_id: str, state: JobState) -> None:
        inbox = self._inboxes.get(run_id)
        if inbox is not None:
            inbox({"type": "job_state", "run_id": run_id, "state": state})


async def _open(key: LinkKey) -> AdapterLink:
    from wove.backend.receiver import open_receiver_session

    receiver = await open_receiver_session(key.config)
    adapter = None
    try:
        adapter = key.adapter_class(
            name=key.name, config=key.config, callback_url=receiver.callback_url, run_config=key.run_config
        )
        await adapter.start()
    except BaseException:
        try:
            if adapter is not None:
                await adapter.close()
        except Exception as error:  # What matters is why the start failed.
            logger.debug("Closing the adapter %r after its failed start failed: %s", key.name, describe(error))
        finally:
            await receiver.close()
        raise
    return AdapterLink(adapter, receiver)


async def _close(link: AdapterLink) -> None:
    link.failure = link.failure or DeliveryOrphanedError(f"The link of adapter {link.adapter.name!r} was closed.")
    await link.close()


links: SharedResources[LinkKey, AdapterLink] = SharedResources(_open, _close)
