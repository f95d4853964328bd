"""What is said of tasks that are taken back, without a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest

from wove_dask import DaskAdapter, connections, jobs


class IdleJobs:
    """Takes tasks back, and has nothing to say."""

    def __init__(self, *args: object, **options: object) -> None: ...

    async def connect(self) -> None: ...

    async def cancel(self, handles: object) -> None: ...

    async def close(self) -> None: ...

    async def why_waiting(self) -> str | None:
        return None

    def heard(self, run_id: str, event_type: str) -> None: ...


class IdleLease:
    """Leads nowhere."""

    connection = None

    def __init__(self, *args: object, **options: object) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_task_whose_worker_is_heard_of_after_all_is_not_said_to_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "Jobs", IdleJobs)
    monkeypatch.setattr(connections, "Lease", IdleLease)
    config = {"address": "tcp://127.0.0.1:1"}
    adapter = DaskAdapter(name="dask", config=config, callback_url="http://127.0.0.1/", run_config={})
    await adapter.start()
    submission: Any = SimpleNamespace(begun=False, carried=True)
    await adapter.cancel("begun", submission, {})
    await adapter.cancel("waiting", submission, {})
    adapter.heard("begun", "task_started")
    run_id, state = await anext(adapter.watch())
    assert (run_id, state.phase) == ("waiting", "cancelled")
    await adapter.close()
