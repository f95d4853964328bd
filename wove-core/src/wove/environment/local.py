"""Runs tasks in this process: coroutine functions on the loop, other callables in threads."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any

from wove.backend.failures import normalize_exception
from wove.backend.threads import in_daemon_thread
from wove.environment.contract import EnvironmentExecutor
from wove.errors import did_you_mean

_COMMANDS = ("run_task", "cancel_task", "shutdown")


async def call_in_place(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a task's callable and return its result; a synchronous one does not block the loop.

    A cancelled synchronous call goes on in its daemon thread, because Python cannot stop one; nobody waits for it.
    """
    if inspect.iscoroutinefunction(function):
        return await function(**arguments)
    result = await in_daemon_thread(partial(copy_context().run, function, **arguments))
    return await result if inspect.isawaitable(result) else result


class LocalEnvironmentExecutor(EnvironmentExecutor):
    """Runs tasks in this process. It needs nothing, sends no heartbeats, and copies nothing.

    `ExecutorRuntime` and weaves call local tasks directly; the four methods make the same behaviour available to code
    that speaks the executor contract. Used on one event loop.
    """

    def __init__(self) -> None:
        self._started = False
        self._runs: dict[str, asyncio.Task[None]] = {}
        # Bounded by the runs in flight: at most two events for each.
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        self._started = True
        self._events = asyncio.Queue()

    async def send(self, frame: dict[str, Any]) -> None:
        if not self._started:
            raise RuntimeError("LocalEnvironmentExecutor.send() was called before start().")
        match frame.get("type"):
            case "run_task":
                task = asyncio.get_running_loop().create_task(self._run(frame))
                self._runs[frame["run_id"]] = task
                task.add_done_callback(lambda _: self._runs.pop(frame["run_id"], None))
            case "cancel_task":
                run = self._runs.get(frame["run_id"])
                if run is not None:
                    run.cancel()
            case "shutdown":
                await self._cancel_all()
            case kind:
                raise ValueError(
                    f"No command is of type {kind!r}.{did_you_mean(str(kind), _COMMANDS)} "
                    f"Commands: {', '.join(_COMMANDS)}."
                )

    async def recv(self) -> dict[str, Any]:
        return await self._events.get()

    async def stop(self) -> None:
        self._started = False
        await self._cancel_all()

    async def _cancel_all(self) -> None:
        running = list(self._runs.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _run(self, frame: dict[str, Any]) -> None:
        about = {"run_id": frame["run_id"], "task_id": frame.get("task_id")}
        self._events.put_nowait({"type": "task_started", **about})
        try:
            result = await call_in_place(frame["callable"], frame.get("args") or {})
        except asyncio.CancelledError:
            self._events.put_nowait({"type": "task_cancelled", **about})
        except Exception as error:
            failure = {"exception": error, "error": normalize_exception(error)}
            self._events.put_nowait({"type": "task_error", **failure, **about})
        else:
            self._events.put_nowait({"type": "task_result", "result": result, **about})
