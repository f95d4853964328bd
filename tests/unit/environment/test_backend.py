"""The executor of backend adapters against the real receiver, with backends in this process."""

import asyncio
import json
import os
import sys
import time
import traceback
from typing import Any

import pytest

from tests.support.adapters import BulkAdapter, Ledger, MemoryAdapter
from tests.support.backend_runtime import Weaving, double, executor
from wove.backend.loop import on_io_loop, shutdown
from wove.environment import BackendAdapterEnvironmentExecutor, ExecutorRuntime
from wove.errors import (
    AdapterError,
    ConfigurationError,
    MissingDispatchFeatureError,
    SerializationError,
    UnknownExecutorError,
)


def raise_value_error() -> None:
    raise ValueError("bad")


async def test_a_task_goes_out_as_a_payload_and_its_result_comes_back(ledger: Ledger) -> None:
    async with Weaving(ledger) as at:
        assert await at.run(double, {"value": 21}, attempt=2, delivery_timeout=30.0) == 42
    [payload], [adapter] = ledger.payloads, ledger.adapters
    assert payload["callback_url"] == adapter.callback_url
    assert (payload["version"], payload["adapter"], payload["task_id"], payload["task_name"]) == (
        1,
        "memory",
        "report",
        "report",
    )
    assert payload["delivery"] == {"delivery_timeout": 30.0}
    assert payload["attempt"] == 2
    assert payload["deadline"] == pytest.approx(time.time() + 30.0, abs=10.0)
    assert len(payload["callback_key"]) == 64
    json.dumps(payload)
    assert ledger.frames[0]["run_id"] == payload["run_id"]


async def test_an_exception_comes_back_with_its_remote_traceback(ledger: Ledger) -> None:
    async with Weaving(ledger) as at:
        with pytest.raises(ValueError, match="bad") as caught:
            await at.run(raise_value_error)
    assert "raise_value_error" in str(caught.value.__cause__)


async def test_the_adapter_gets_every_key_of_the_configuration(ledger: Ledger) -> None:
    async with Weaving(ledger, callback_host="127.0.0.1", callback_token="a-token", queue="q"):
        pass
    [adapter] = ledger.adapters
    assert adapter.name == "memory"
    assert adapter.config["callback_host"] == "127.0.0.1"
    assert adapter.config["callback_token"] == "a-token"
    assert adapter.config["queue"] == "q"
    assert adapter.callback_url.endswith("/wove/events/a-token")


async def test_one_adapter_serves_all_weaves_of_a_configuration(ledger: Ledger) -> None:
    for _ in range(2):
        async with Weaving(ledger) as first, Weaving(ledger) as second:
            await asyncio.gather(first.run(double, {"value": 1}), second.run(double, {"value": 2}))
    assert len(ledger.started) == 1
    assert ledger.closed == []
    await asyncio.to_thread(shutdown)
    assert ledger.closed == ledger.started


async def test_another_configuration_has_another_adapter(ledger: Ledger) -> None:
    async with Weaving(ledger, queue="a"), Weaving(ledger, queue="b"), Weaving(ledger, queue="a"):
        assert len(ledger.started) == 2


async def test_one_instance_serves_environments_with_different_configurations(ledger: Ledger) -> None:
    shared = executor()
    definitions = {
        name: {"executor": shared, "executor_config": {"ledger": ledger, "queue": name}} for name in ("a", "b")
    }
    at = ExecutorRuntime(definitions, {})
    await at.start()
    for name in definitions:
        info = {"environment": name}
        assert await at.run_task(task_name="t", task_func=double, task_args={"value": 1}, task_info=info) == 2
    await at.stop()
    assert [adapter.config["queue"] for adapter in ledger.started] in (["a", "b"], ["b", "a"])


async def test_a_refused_submission_is_the_task_s_own_error(ledger: Ledger) -> None:
    ledger.submit_failure = ConnectionError("broker is gone")
    async with Weaving(ledger) as at:
        with pytest.raises(ConnectionError, match="broker is gone") as caught:
            await at.run(double, {"value": 1})
    assert caught.value is ledger.submit_failure
    assert ledger.cancelled == []


async def test_what_cannot_be_pickled_is_an_error_that_names_the_task(ledger: Ledger) -> None:
    async with Weaving(ledger) as at:
        with pytest.raises(SerializationError, match="'report'"):
            await at.run(double, {"value": (number for number in range(3))})
    assert ledger.payloads == []


async def test_a_failed_start_reaches_the_weave_and_is_cleaned_up(ledger: Ledger) -> None:
    ledger.start_failure = ConnectionError("broker is gone")
    at = Weaving(ledger)
    with pytest.raises(ConnectionError, match="broker is gone"):
        await at.runtime.start()
    assert ledger.closed == ledger.adapters
    ledger.start_failure = None
    async with at:
        assert await at.run(double, {"value": 1}) == 2


async def test_missing_modules_fail_the_start_before_anything_is_made(ledger: Ledger) -> None:
    class Needy(MemoryAdapter):
        required_modules = ("no_such_package.part",)
        install_hint = "no-such-package"

    with pytest.raises(MissingDispatchFeatureError, match=r"Environment 'jobs'.*pip install no-such-package"):
        await Weaving(ledger, Needy).runtime.start()
    assert ledger.adapters == []


async def test_the_executor_s_own_list_of_modules_is_checked_instead(ledger: Ledger) -> None:
    needy = executor(required_modules=("no_such_package",))
    at = ExecutorRuntime({"jobs": {"executor": needy, "executor_config": {"ledger": ledger}}}, {})
    with pytest.raises(MissingDispatchFeatureError, match="no_such_package"):
        await at.start()


async def test_a_class_that_is_no_adapter_is_refused() -> None:
    at = ExecutorRuntime({"jobs": {"executor": BackendAdapterEnvironmentExecutor("x", adapter_class=dict)}}, {})  # type: ignore[arg-type]
    with pytest.raises(AdapterError, match="Environment 'jobs'"):
        await at.start()


async def test_an_adapter_that_is_not_installed_is_named_when_the_environment_starts() -> None:
    at = ExecutorRuntime({"jobs": {"executor": BackendAdapterEnvironmentExecutor("celry")}}, {})
    with pytest.raises(UnknownExecutorError, match=r"Environment 'jobs'.*Did you mean 'celery'"):
        await at.start()


@pytest.mark.parametrize(
    "config", [{"callback_port": "nine"}, {"callback_hots": "x"}, {"max_payload_bytes": 0}, {"results": "xml"}]
)
async def test_a_wrong_setting_is_an_error_that_names_the_environment(ledger: Ledger, config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^Environment 'jobs': ") as caught:
        await Weaving(ledger, **config).runtime.start()
    assert "".join(traceback.format_exception(caught.value)).count("ConfigurationError: ") == 1


async def test_submissions_of_the_same_moment_go_out_together(ledger: Ledger) -> None:
    async with Weaving(ledger, BulkAdapter) as at:
        results = await asyncio.gather(*(at.run(double, {"value": item}, item=item) for item in range(50)))
    assert results == [2 * item for item in range(50)]
    assert len(ledger.payloads) == 50
    # A thread switch may divide them, but not much.
    assert len(ledger.batches) <= 10


async def test_a_submission_that_is_refused_in_bulk_fails_alone(ledger: Ledger) -> None:
    refusal = ValueError("too long")
    first: list[str] = []

    def refuse(payload: dict[str, Any]) -> Exception | None:
        first.append(payload["run_id"])
        return refusal if payload["run_id"] == first[0] else None

    ledger.refuse = refuse
    async with Weaving(ledger, BulkAdapter) as at:
        runs = (at.run(double, {"value": item}, item=item) for item in range(20))
        results = await asyncio.gather(*runs, return_exceptions=True)
    assert results.count(refusal) == 1
    assert sum(isinstance(result, int) for result in results) == 19


@pytest.mark.parametrize("where", ["adapter", "configuration"])
async def test_a_large_payload_waits_here_for_its_worker(ledger: Ledger, where: str) -> None:
    class Narrow(MemoryAdapter):
        max_payload_bytes = 4096 if where == "adapter" else 10**9

    config = {"max_payload_bytes": 4096} if where == "configuration" else {}
    async with Weaving(ledger, Narrow, **config) as at:
        assert await at.run(len_of, {"data": b"x" * 1_000_000}) == 1_000_000
    [payload] = ledger.payloads
    assert len(json.dumps(payload)) <= 4096
    assert "claim" in payload
    assert "args_pickle" not in payload


def len_of(data: bytes) -> int:
    return len(data)


async def test_a_payload_under_a_shared_secret_is_signed_and_holds_no_key(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "WOVE_TEST_SECRET", "s" * 32)
    async with Weaving(ledger, callback_security="env:WOVE_TEST_SECRET", max_payload_bytes=4096) as at:
        assert await at.run(double, {"value": 1}) == 2
        assert await at.run(len_of, {"data": b"x" * 10_000}) == 10_000
    for payload in ledger.payloads:
        assert "callback_key" not in payload
        assert payload["callback_security"] == "env:WOVE_TEST_SECRET"
        assert len(payload["signature"]) == 64


async def test_signed_events_are_demanded_where_the_configuration_says_so(ledger: Ledger) -> None:
    async with Weaving(ledger, callback_security="signed") as at:
        assert await at.run(double, {"value": 1}) == 2
    assert len(ledger.payloads[0]["callback_key"]) == 64


async def test_results_may_be_json_alone(ledger: Ledger) -> None:
    async with Weaving(ledger, results="json") as at:
        assert await at.run(double, {"value": 1}) == 2
    assert ledger.payloads[0]["results"] == "json"


async def test_it_can_be_driven_by_its_four_methods_alone(ledger: Ledger) -> None:
    driven = executor()

    async def drive() -> list[str]:
        await driven.start(environment_name="jobs", environment_config={"ledger": ledger}, run_config={})
        await driven.send(
            {"type": "run_task", "run_id": "r-1", "task_id": "t", "callable": double, "args": {"value": 21}}
        )
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "task_result":
            events.append(await driven.recv())
        await driven.stop()
        assert events[-1]["result"] == 42
        return [event["type"] for event in events]

    assert sorted(set(await on_io_loop(drive())) - {"submitted"}) == ["task_result", "task_started"]


async def test_the_four_methods_refuse_what_makes_no_sense(ledger: Ledger) -> None:
    driven = executor()
    with pytest.raises(RuntimeError, match="before start"):
        await driven.send({"type": "run_task"})

    async def drive() -> None:
        await driven.start(environment_name="jobs", environment_config={"ledger": ledger}, run_config={})
        try:
            await driven.send({"type": "run_tsk", "run_id": "r"})
        finally:
            await driven.stop()

    with pytest.raises(ValueError, match="Did you mean 'run_task'"):
        await on_io_loop(drive())


async def test_ten_plain_weaves_in_a_row_cost_little_each(ledger: Ledger) -> None:
    async with Weaving(ledger) as at:
        await at.run(double, {"value": 1})
    fastest = 1.0
    for _ in range(10):
        before = time.perf_counter()
        async with Weaving(ledger) as at:
            await at.run(double, {"value": 1})
        fastest = min(fastest, time.perf_counter() - before)
    assert fastest <= 0.03


def test_importing_the_environments_loads_no_networking_code() -> None:
    import subprocess

    program = (
        "import sys, wove.environment; from wove.environment import ExecutorRuntime, EnvironmentExecutor;"
        "assert not {'starlette', 'uvicorn', 'httpx', 'grpc', 'websockets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
