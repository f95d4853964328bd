"""The executor sessions of the process, on its background loop."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from wove.backend.loop import IOLoop
from wove.backend.threads import in_daemon_thread
from wove.environment.contract import EnvironmentExecutor
from wove.environment.idle_sessions import IdleSessions
from wove.environment.registry import coerce_executor, named_executor
from wove.environment.sessions import ExecutorSession, SharedRuns
from wove.errors import ConfigurationError, DeliveryOrphanedError

# At shutdown, cancels get less time than otherwise: everything else on the loop must still be closed in time.
_SHUTDOWN_PATIENCE = 1.5


class SessionRegistry:
    """Finds or makes the session of an environment. One per background loop, and used on it only, but for `idle`.

    An executor that is named in the configuration gets a session per runtime: what is expensive about it is shared
    below. An executor instance has one session, which all runtimes of the process share.

    Attributes:
        idle: sessions that may serve another runtime.
    """

    def __init__(self) -> None:
        self.idle = IdleSessions(asyncio.get_running_loop())
        self._sessions: set[ExecutorSession] = set()
        self._of_instances: dict[int, ExecutorSession] = {}
        self._shared = SharedRuns()
        self._known_names: set[str] = set()

    async def open(
        self, environment: str, definition: Mapping[str, Any], *, run_config: Mapping[str, Any]
    ) -> ExecutorSession:
        """Return the started session of an environment; each needs one `ExecutorSession.release`.

        Raises:
            ConfigurationError: the definition is wrong, or names an executor that does not exist.
            Exception: whatever the executor's `start` raises.
        """
        session = await self._session(environment, definition, run_config)
        await session.acquire()
        return session

    async def close(self) -> None:
        """Stop every executor now, whoever uses it."""
        error = DeliveryOrphanedError("Wove was shut down while the task was in flight.")
        closing = [session.shut_down(error, patience=_SHUTDOWN_PATIENCE) for session in self._sessions]
        await asyncio.gather(*closing, return_exceptions=True)

    async def _session(
        self, environment: str, definition: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> ExecutorSession:
        executor, config = definition.get("executor"), definition.get("executor_config") or {}
        if isinstance(executor, str):
            return self._new(await self._factory(executor, environment), environment, config, run_config)
        instance = coerce_executor(executor)
        session = self._of_instances.get(id(instance))
        if session is None:
            session = self._new(lambda: instance, environment, config, run_config)
            self._of_instances[id(instance)] = session
        elif not session.serves(environment, config):
            return self._new(_copies_of(instance, environment, session.environment), environment, config, run_config)
        return session

    async def _factory(self, name: str, environment: str) -> Callable[[], EnvironmentExecutor]:
        if name not in self._known_names:
            # The first one imports the executor's module, which may take its time.
            await in_daemon_thread(partial(named_executor, name, environment=environment))
            self._known_names.add(name)
        return partial(named_executor, name, environment=environment)

    def _new(
        self,
        make_executor: Callable[[], EnvironmentExecutor],
        environment: str,
        config: Mapping[str, Any],
        run_config: Mapping[str, Any],
    ) -> ExecutorSession:
        session = ExecutorSession(
            make_executor,
            environment=environment,
            config=config,
            run_config=run_config,
            shared=self._shared,
            ended=self._forget,
        )
        self._sessions.add(session)
        return session

    def _forget(self, session: ExecutorSession) -> None:
        self._sessions.discard(session)
        for identity, known in list(self._of_instances.items()):
            if known is session:
                del self._of_instances[identity]


def _copies_of(instance: EnvironmentExecutor, environment: str, other: str) -> Callable[[], EnvironmentExecutor]:
    """Return how to make another executor like an instance that is in use with another configuration."""
    copy: Callable[[], EnvironmentExecutor] | None = getattr(instance, "session_copy", None)
    if copy is None:
        raise ConfigurationError(
            f"Environment {environment!r}: its executor {instance!r} is in use by environment {other!r}, with another "
            "name or executor_config. Give each environment an instance of its own."
        )
    return copy


_registries: "WeakKeyDictionary[IOLoop, SessionRegistry]" = WeakKeyDictionary()


def idle_sessions(background: IOLoop) -> IdleSessions | None:
    """Return the sessions of a background loop that may be taken over. May be called from any thread."""
    registry = _registries.get(background)
    return None if registry is None else registry.idle


def session_registry(background: IOLoop) -> SessionRegistry:
    """Return the registry of a background loop. Called on that loop."""
    registry = _registries.get(background)
    if registry is None:
        registry = _registries[background] = SessionRegistry()
        background.on_close(registry.close, first=True)
    return registry
