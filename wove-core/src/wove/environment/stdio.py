"""The executor that runs tasks in worker processes on this machine, or behind any command that speaks on a pipe."""

from collections.abc import Mapping
from typing import Any

from wove.backend.types import FINAL_EVENTS
from wove.environment.callable_pickles import CallablePickles
from wove.environment.contract import EnvironmentExecutor
from wove.environment.event_queue import EventQueue, Listener
from wove.environment.stdio_run import StdioRun
from wove.environment.stdio_settings import StdioSettings, read_settings
from wove.environment.worker_pool import WorkerPool, cannot_start, worker_pools
from wove.serialization import require_serializer


class StdioEnvironmentExecutor(EnvironmentExecutor):
    """Runs tasks in worker processes that this one starts and talks to through their stdin and stdout.

    The processes are kept across weaves. They end half a minute after the last environment with the same settings has
    stopped, at ``wove.shutdown()``, at the interpreter's exit, and by themselves when this process dies.

    ``executor_config``:

    - ``command``: the worker, as a string or a list of strings. It gets one JSON frame per line on stdin and writes one
      per line on stdout. Default: Wove's own worker, ``python -m wove.stdio_worker``, with this interpreter.
    - ``processes``: the most worker processes, 1 by default; one more is started when every other one is busy.
    - ``threads``: how many synchronous tasks run side by side in one process: 16 by default in Wove's own worker, not
      limited for any other. Coroutines share the worker's event loop and are not counted.
    - ``env``: environment variables on top of this process's own.
    - ``cwd``: the directory in which the worker runs.

    A cancelled coroutine is cancelled; a cancelled synchronous task is interrupted where Python allows that. One that
    has not stopped after two seconds has its process ended, as soon as nobody waits for another run that has begun in
    that process.

    A worker that dies fails the runs that may have begun there with `DeliveryOrphanedError`, which holds the exit code
    and the last lines of stderr; one whose ``delivery_orphan_policy`` is ``requeue`` begins anew, once. Runs that it
    had not begun go to a new worker.
    """

    reusable = begins = listens = True

    def __init__(self) -> None:
        self._environment = ""
        self._settings: StdioSettings | None = None
        self._pool: WorkerPool | None = None
        self._runs: dict[str, StdioRun] = {}
        self._pickles = CallablePickles()
        self._events = EventQueue()

    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        """Check the configuration and start the first worker process, unless one is still there.

        Raises:
            ConfigurationError: a setting is unknown or has a wrong value, or the command cannot be started.
            MissingDispatchFeatureError: cloudpickle is not installed.
        """
        require_serializer("The stdio executor")
        settings = read_settings(environment_name, environment_config)
        try:
            self._pool = await worker_pools.acquire(settings)
        except OSError as error:
            raise cannot_start(environment_name, settings, error) from error
        self._environment = environment_name
        self._settings = settings

    async def send(self, frame: dict[str, Any]) -> None:
        """Hand a command to the pool.

        A run waits there until a worker has room. Arguments that cannot be pickled come back as a ``task_error`` event.

        Raises:
            RuntimeError: the executor has not been started.
            ValueError: the command's type is unknown.
        """
        pool, kind = self._started_pool, frame.get("type")
        if kind == "run_task":
            self.begin(frame)
        elif kind == "cancel_task":
            if known := self._runs.get(frame["run_id"]):
                pool.cancel(known, frame)
        elif kind != "shutdown":  # The processes are shared and outlive the session.
            raise ValueError(f"The stdio executor does not know the command {kind!r}.")

    def begin(self, frame: dict[str, Any]) -> bool:
        """Hand a ``run_task`` to the pool, as `send` does."""
        pool, is_coroutine = self._started_pool, self._pickles.is_coroutine(frame["callable"])
        run = StdioRun(frame["run_id"], frame, self._environment, is_coroutine, self._pickles, self._deliver)
        self._runs[run.run_id] = run
        pool.submit(run)
        return True

    def listen(self, listener: Listener) -> None:
        """Offer each event to a listener before `recv` returns it, until the executor is stopped."""
        self._events.listen(listener)

    def renew(self) -> None:
        """Let go of the functions of the weave before, and of what they hold."""
        self._pickles = CallablePickles()

    @property
    def _started_pool(self) -> WorkerPool:
        if self._pool is None:
            raise RuntimeError("The stdio executor has not been started: await start() before send().")
        return self._pool

    async def recv(self) -> dict[str, Any]:
        """Return the next event; waits until there is one."""
        return await self._events.get()

    async def stop(self) -> None:
        """Give up the runs that have not ended, but those with the orphan policy ``detach``, and leave the pool."""
        pool, self._pool = self._pool, None
        self._events.listen(None)
        if pool is None or self._settings is None:
            return
        for run in list(self._runs.values()):
            if run.orphan_policy != "detach":
                pool.cancel(run, {"type": "cancel_task", **run.ids})
        worker_pools.release(self._settings)

    def _deliver(self, event: dict[str, Any], started: bool) -> None:
        if event["type"] in FINAL_EVENTS:
            self._runs.pop(event["run_id"], None)
        self._events.put(event, started=started)
