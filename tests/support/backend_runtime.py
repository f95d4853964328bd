"""A runtime with one environment whose backend is in this process, and a task for it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.adapters import Ledger, MemoryAdapter
from wove.environment import BackendAdapterEnvironmentExecutor, ExecutorRuntime
from wove.integrations.base import BackendAdapter


def executor(adapter_class: type[BackendAdapter] = MemoryAdapter, **settings: Any) -> BackendAdapterEnvironmentExecutor:
    return BackendAdapterEnvironmentExecutor("memory", adapter_class=adapter_class, **settings)


class Weaving:
    """A runtime with one environment, for one block."""

    def __init__(self, ledger: Ledger, adapter_class: type[BackendAdapter] = MemoryAdapter, **config: Any) -> None:
        definition = {"executor": executor(adapter_class), "executor_config": {"ledger": ledger, **config}}
        self.runtime = ExecutorRuntime({"jobs": definition}, {})

    async def __aenter__(self) -> "Weaving":
        await self.runtime.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.runtime.stop()

    async def run(self, function: Callable[..., Any], args: Mapping[str, Any] | None = None, **info: Any) -> Any:
        async with asyncio.timeout(60):
            return await self.runtime.run_task(
                task_name="report", task_func=function, task_args=args or {}, task_info=info
            )


async def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def double(value: int) -> int:
    return 2 * value
