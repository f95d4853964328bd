"""Routes each task of a weave to the environment that runs it."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

from wove.backend.loop import IOLoop, io_loop, on_io_loop
from wove.backend.threads import in_daemon_thread
from wove.environment.calls import RemoteCall
from wove.environment.contract import EnvironmentExecutor
from wove.environment.crossing import Crossing
from wove.environment.fingerprint import fingerprint
from wove.environment.limits import in_flight_limit
from wove.environment.local import LocalEnvironmentExecutor, call_in_place
from wove.environment.orders import dead_job_grace, make_order
from wove.environment.session_registry import idle_sessions, session_registry
from wove.environment.sessions import ExecutorSession
from wove.errors import ConfigurationError, DeliveryOrphanedError, UnknownEnvironmentError
from wove.options import TASK_OPTIONS, TaskOptions, resolve_options
from wove.plugins.manager import active_hooks, are_loaded

# How long `stop` waits for executors, and how long for a sign that the background loop is alive at all.
_STOP_SECONDS = 20.0
_ALIVE_SECONDS = 1.0

logger = logging.getLogger("wove")


class _Started:
    """A remote environment whose session is open."""

    __slots__ = ("_key", "_options", "background", "grace", "out", "scope", "session")

    def __init__(
        self,
        session: ExecutorSession,
        background: IOLoop,
        *,
        key: Hashable,
        scope: object,
        grace: float,
        options: TaskOptions,
    ) -> None:
        self._key = key
        self._options = options
        self.session = session
        self.background = background
        self.out = Crossing(background.loop)
        self.scope = scope
        self.grace = grace

    def options_of(self, task_info: Mapping[str, Any]) -> TaskOptions:
        """Return a task's effective options: those that it is given, else the environment's."""
        given = {name: value for name, value in task_info.items() if name in TASK_OPTIONS}
        return cast(TaskOptions, {**self._options, **given})

    def pass_on(self) -> bool:
        """Leave the session to whoever comes next; return whether somebody may."""
        idle = idle_sessions(self.background)
        return self._key is not None and idle is not None and idle.give(self._key, self.session)


class ExecutorRuntime:
    """Runs tasks in the environments of one weave. All methods are called on one event loop, that of the weave.

    Local environments run tasks in this process; the executors of the others live on Wove's background loop.

    Args:
        environment_definitions: a definition for each environment name: ``executor`` (a name or an instance),
            ``executor_config``, and options.
        run_config: the effective settings of the weave; executors get them together with the definition's options.
    """

    def __init__(
        self, environment_definitions: Mapping[str, Mapping[str, Any]], run_config: Mapping[str, Any] | None = None
    ) -> None:
        self._definitions: dict[str, Mapping[str, Any]] = {}
        self._run_config = dict(run_config or {})
        self._started: dict[str, _Started] = {}
        self._calls: set[RemoteCall] = set()
        self._back: Crossing | None = None
        self._starting = asyncio.Lock()
        self._all_succeeded = True
        for name, definition in environment_definitions.items():
            self._define(name, definition)

    async def start(self) -> None:
        """Start every environment that is not local, all at once. If one fails, none stays started.

        Raises:
            UnknownExecutorError: an environment names an executor that does not exist.
            MissingDispatchFeatureError: a package that an environment needs is not installed.
            Exception: whatever else an executor's `start` raises.
        """
        async with self._starting:
            await self._start([name for name in self._definitions if not self.is_local_environment(name)])

    async def stop(self) -> None:
        """Leave every environment. Tasks that are still in flight end with a `DeliveryOrphanedError`."""
        for call in list(self._calls):
            self._all_succeeded = False
            call.give_up(DeliveryOrphanedError("The runtime was stopped while the task was in flight."))
        self.pass_on()
        started, self._started, self._back = self._started, {}, None
        for background in {each.background for each in started.values()}:
            # A cancel that is on its way is waited for.
            await _leave(background, [each.session for each in started.values() if each.background is background])

    def pass_on(self) -> bool:
        """Leave those environments that may serve another weave as they are: everything went well in them.

        Returns:
            Whether that is all of them, so that there is nothing to `stop`.
        """
        if self._all_succeeded and not self._calls:
            self._started = {name: each for name, each in self._started.items() if not each.pass_on()}
        return not self._started

    async def ensure_environment(self, environment_name: str, definition: Mapping[str, Any]) -> None:
        """Add an environment that was not there from the beginning, and start it; does nothing for a known name that is
        started or local.

        Raises:
            Exception: what `start` raises.
        """
        async with self._starting:
            if environment_name not in self._definitions:
                self._define(environment_name, definition)
            if not self.is_local_environment(environment_name):
                await self._start([environment_name])

    def is_started(self, environment_name: str) -> bool:
        """Tell whether an environment is remote, and ready for tasks."""
        return environment_name in self._started

    def is_local_environment(self, environment_name: str) -> bool:
        """Tell whether an environment runs tasks in this process.

        Raises:
            UnknownEnvironmentError: there is no such environment.
        """
        if environment_name not in self._definitions:
            raise UnknownEnvironmentError(environment_name, self._definitions)
        executor = self._definitions[environment_name].get("executor")
        return executor is None or executor == "local" or type(executor) is LocalEnvironmentExecutor

    async def run_task(
        self,
        *,
        task_name: str,
        task_func: Callable[..., Any],
        task_args: Mapping[str, Any],
        task_info: Mapping[str, Any],
    ) -> Any:
        """Run one attempt at a task and return its result. Cancelling gives a remote run up, as its policy says.

        Args:
            task_name: the task's name.
            task_func: its callable, sync or async.
            task_args: the arguments by name.
            task_info: the task's effective options, ``environment``, and for remote ones ``attempt``, ``item``,
                ``trace`` and ``weave``. Missing options are taken from the environment and the run configuration; a
                missing environment is ``"default"``, or the only one.

        Raises:
            UnknownEnvironmentError: there is no such environment.
            DeliveryTimeoutError: the remote run did not end in time, or its heartbeats stopped.
            DeliveryOrphanedError: its job is over without a final event, or the runtime was stopped.
            Exception: what the task raised.
        """
        name = task_info.get("environment") or self._default_environment()
        if self.is_local_environment(name):
            return await call_in_place(task_func, task_args)
        if name not in self._started:
            await self.ensure_environment(name, self._definitions[name])
        options = self._started[name].options_of(task_info)
        async with in_flight_limit(name).place(options["delivery_max_in_flight"]):
            started = self._started[name]
            order = make_order(
                environment=name,
                task_name=task_name,
                task_func=task_func,
                task_args=task_args,
                task_info=task_info,
                options=options,
                grace=started.grace,
                scope=started.scope,
            )
            call = RemoteCall(order, started.session, out=started.out, back=self._way_back())
            self._calls.add(call)
            try:
                return await call.result()
            except BaseException:
                self._all_succeeded = False
                raise
            finally:
                self._calls.discard(call)

    def _way_back(self) -> Crossing:
        if self._back is None:
            self._back = Crossing(asyncio.get_running_loop())
        return self._back

    def _define(self, name: str, definition: Mapping[str, Any]) -> None:
        if not isinstance(definition, Mapping):
            raise ConfigurationError(f"Environment {name!r}: its definition must be a mapping, not {definition!r}.")
        config = definition.get("executor_config")
        if config is not None and not isinstance(config, Mapping):
            raise ConfigurationError(
                f"Environment {name!r}: executor_config must be a mapping of settings, not {type(config).__name__}."
            )
        self._definitions[name] = definition

    def _default_environment(self) -> str:
        return next(iter(self._definitions)) if len(self._definitions) == 1 else "default"

    async def _start(self, names: list[str]) -> None:
        missing = {name: self._definitions[name] for name in names if name not in self._started}
        if not missing:
            return
        graces = {name: dead_job_grace(each.get("executor_config") or {}, name) for name, each in missing.items()}
        if not are_loaded():
            # Delivery looks at them on the background loop, which loading them would block.
            await in_daemon_thread(active_hooks)
        background = io_loop()
        keys = {name: _session_key(name, each) for name, each in missing.items()}
        sessions = _idle_ones(background, keys)
        unopened = {name: each for name, each in missing.items() if name not in sessions}
        if unopened:
            try:
                sessions |= await on_io_loop(_open_all(background, unopened, self._run_config))
            except BaseException:
                await _leave(background, list(sessions.values()))
                raise
        for name, session in sessions.items():
            self._started[name] = _Started(
                session,
                background,
                key=keys[name],
                scope=(name, _identity(missing[name].get("executor"))),
                grace=graces[name],
                options=resolve_options(missing[name], self._run_config),
            )


def _session_key(environment: str, definition: Mapping[str, Any]) -> Hashable:
    """Return what makes sessions equal; None where an executor instance has a session of its own."""
    executor = definition.get("executor")
    if not isinstance(executor, str):
        return None
    return environment, executor, fingerprint(definition.get("executor_config") or {})


def _idle_ones(background: IOLoop, keys: Mapping[str, Hashable]) -> dict[str, ExecutorSession]:
    idle = idle_sessions(background)
    if idle is None:
        return {}
    taken = {name: idle.take(key) for name, key in keys.items() if key is not None}
    return {name: session for name, session in taken.items() if session is not None}


def _identity(executor: "str | EnvironmentExecutor | None") -> object:
    return executor if isinstance(executor, str) else id(executor)


async def _open_all(
    background: IOLoop, definitions: Mapping[str, Mapping[str, Any]], run_config: Mapping[str, Any]
) -> dict[str, ExecutorSession]:
    """Open a session for each definition, or none. Runs on the background loop."""
    registry = session_registry(background)
    if len(definitions) == 1:
        ((name, definition),) = definitions.items()
        return {name: await registry.open(name, definition, run_config={**run_config, **_options_in(definition)})}
    opening = {
        name: asyncio.ensure_future(
            registry.open(name, definition, run_config={**run_config, **_options_in(definition)})
        )
        for name, definition in definitions.items()
    }
    try:
        await asyncio.wait(opening.values(), return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in opening.values() if task.done() and task.exception() is not None]
        if not failed:
            return {name: task.result() for name, task in opening.items()}
        return failed[0].result()  # type: ignore[return-value]
    except BaseException:
        await _close_opened(list(opening.values()))
        raise


async def _close_opened(opening: "list[asyncio.Task[ExecutorSession]]") -> None:
    for task in opening:
        task.cancel()
    await asyncio.wait(opening)
    for task in opening:
        if not task.cancelled() and task.exception() is None:
            await task.result().release()


def _options_in(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in definition.items() if name not in ("executor", "executor_config")}


async def _leave(background: IOLoop, sessions: list[ExecutorSession]) -> None:
    """Release sessions, which stops the unused ones; go on without waiting if the background loop is blocked."""
    if not sessions:
        return
    responding = False

    async def release() -> None:
        nonlocal responding
        responding = True
        await asyncio.gather(*(session.release() for session in sessions))

    releasing = release()
    try:
        released = background.spawn(releasing)
    except RuntimeError:  # Wove has been shut down, and the sessions with it.
        releasing.close()
        return
    waiting = [asyncio.wrap_future(released)]
    done, _ = await asyncio.wait(waiting, timeout=_ALIVE_SECONDS)
    if done:
        return
    if responding:
        await asyncio.wait(waiting, timeout=_STOP_SECONDS)
    else:
        logger.warning("Wove's background loop does not respond: an adapter or executor blocks it. Leaving without it.")
