"""What the network executors have in common: a session of conversations over one link."""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from wove.backend.frames import Part, frame_to_bytes
from wove.backend.loop import is_io_loop
from wove.backend.sharing import SharedResources
from wove.environment.callable_pickles import CallablePickles
from wove.environment.contract import EnvironmentExecutor
from wove.environment.event_queue import EventQueue, Listener
from wove.environment.network_conversation import CANCEL_SECONDS, Conversation
from wove.environment.network_link import Command, Link, TransportFailure
from wove.environment.network_settings import NetworkSettings
from wove.errors import did_you_mean
from wove.serialization import encode, require_serializer

_COMMANDS = ("run_task", "cancel_task", "shutdown")


class NetworkExecutor(EnvironmentExecutor):
    """Sends each run to a worker service over connections that all weaves of the process share.

    A session belongs to one event loop. A subclass names its feature, reads its settings and opens its links.
    """

    feature: ClassVar[str]
    links: ClassVar[SharedResources[NetworkSettings, Link]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()

        async def open_link(settings: NetworkSettings) -> Link:
            return cls.open_link(settings)

        cls.links = SharedResources(open_link, lambda link: link.close())

    def __init__(self) -> None:
        self._inbox = EventQueue()
        self._environment = ""
        self._link: Link | None = None
        self._shared = False
        self._conversations: dict[str, Conversation] = {}
        self._pickles = CallablePickles()

    @classmethod
    @abstractmethod
    def open_link(cls, settings: NetworkSettings) -> Link:
        """Return a new link; it connects when it is needed."""

    @abstractmethod
    def read_settings(self, environment: str, config: Mapping[str, Any]) -> NetworkSettings:
        """Check the packages and settings that the transport needs, and return the settings."""

    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        """Check the configuration and join the connections to the service. Nothing is sent before the first task.

        Raises:
            ConfigurationError: a setting is missing, unknown or wrong, or the way to the service is not safe.
            MissingDispatchFeatureError: a package that the transport needs is not installed.
        """
        if self._link is not None:
            raise RuntimeError(f"Environment {environment_name!r}: the executor has been started already.")
        require_serializer(self.feature)
        settings = self.read_settings(environment_name, environment_config or {})
        # On a loop of the caller's own the connections are the session's: they cannot outlive it.
        self._shared = is_io_loop(asyncio.get_running_loop())
        self._link = await self.links.acquire(settings) if self._shared else self.open_link(settings)
        self._environment = environment_name

    async def send(self, frame: dict[str, Any]) -> None:
        """Hand over one command; a ``cancel_task`` has reached the service when this returns.

        ``shutdown`` concerns the session alone: the service goes on serving others.

        Raises:
            ConnectionError: a ``cancel_task`` did not reach the service.
            RuntimeError: the session has not been started.
            SerializationError: the callable or an argument cannot be pickled.
            ValueError: the command's type is unknown.
        """
        link, kind = self._started_link, frame.get("type")
        if kind == "run_task":
            self.begin(frame)
        elif kind == "cancel_task":
            await self._cancel(link, _command(frame))
        elif kind != "shutdown":
            hint = did_you_mean(str(kind), _COMMANDS)
            raise ValueError(f"No command is of type {kind!r}.{hint} Types: {', '.join(_COMMANDS)}.")

    def listen(self, listener: Listener) -> None:
        """Offer each event to a listener before `recv` returns it, until the session is stopped."""
        self._inbox.listen(listener)

    def renew(self) -> None:
        """Let go of the functions of the weave before, and of what they hold."""
        self._pickles = CallablePickles()

    @property
    def _started_link(self) -> Link:
        if self._link is None:
            raise RuntimeError(f"{type(self).__name__} has not been started: await start() before send().")
        return self._link

    async def recv(self) -> dict[str, Any]:
        """Return the next event; waits until there is one.

        Raises:
            RuntimeError: the session has not been started.
        """
        if self._link is None:
            raise RuntimeError(f"{type(self).__name__} has not been started: await start() before recv().")
        return await self._inbox.get()

    def close_run(self, run_id: str) -> None:
        """Hear no more of a run; its connection is given back."""
        if run_id in self._conversations:
            self._conversations[run_id].leave()

    async def stop(self) -> None:
        """Give up what is pending and leave the connections, which stay open for a while for the next session."""
        link, self._link = self._link, None
        self._inbox.listen(None)
        conversations = list(self._conversations.values())
        for conversation in conversations:
            conversation.leave()
        await asyncio.gather(*(conversation.ended() for conversation in conversations))
        if link is not None and self._shared:
            self.links.release(link.settings)
        elif link is not None:
            await link.close()

    def _with_pickle(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Return a ``run_task`` frame with its callable pickled: once for all the items that it is mapped over."""
        function = frame["callable"]
        pickled = self._pickles.get(function, what=Part("the callable", frame))
        sent = {name: value for name, value in frame.items() if name != "callable"}
        sent["callable_pickle"] = encode(pickled.pickle)
        # A service never unpickles a task, so it is told whether the task needs a thread.
        sent["coroutine"] = self._pickles.is_coroutine(function)
        return sent

    def begin(self, frame: dict[str, Any]) -> bool:
        """Hand over a ``run_task``, as `send` does."""
        link, command = self._started_link, _command(self._with_pickle(frame))
        conversation = Conversation(command, link, self._inbox, environment=self._environment)
        self._conversations[command.run_id] = conversation
        conversation.begin(lambda: self._conversations.pop(command.run_id, None))
        return True

    async def _cancel(self, link: Link, command: Command) -> None:
        conversation = self._conversations.get(command.run_id)
        if conversation is None:
            conversation = Conversation(command, link, self._inbox, environment=self._environment)
        elif not await conversation.sent():
            return
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await link.cancel(command, conversation.hear)
        except (TransportFailure, TimeoutError) as failure:
            reason = str(failure) or f"no answer within {CANCEL_SECONDS:g} s"
            address = link.settings.address
            raise ConnectionError(f"Environment {self._environment!r}: {address}: no cancel, {reason}.") from None
        if conversation.done:
            # The answer to the cancel was the run's final event: nobody needs the answer to the run itself any more.
            conversation.abort()


def _command(frame: dict[str, Any]) -> Command:
    timeout = (frame.get("delivery") or {}).get("delivery_timeout")
    return Command(frame["run_id"], frame.get("task_id"), frame_to_bytes(frame), timeout)
