"""The ways to start a worker, beside those of the conformance tests."""

from typing import Any

import pytest
from arq.connections import RedisSettings, create_pool
from arq.worker import create_worker
from arq_backend import Deploy, RedisServer, arq_command, own_command

import wove
from wove_arq.worker import make_settings, payload_function, run_payload


def _double(environment: dict[str, Any]) -> object:
    name = environment["executor_config"].get("queue_name", "jobs")
    environments = {"here": {"executor": "local"}, name: environment}
    wove.config(default_environment="here", environments=environments)
    with wove.weave(number=21) as w:

        @w.do(environment=name, delivery_timeout=30.0)
        def doubled(number: int) -> int:
            return 2 * number

    return w.result["doubled"]


def test_arqs_command_takes_the_shipped_settings(deploy: Deploy) -> None:
    deployment = deploy(command=arq_command("wove_arq.worker.settings"))
    deployment.ensure_worker()
    assert _double(deployment.environment()) == 42


def test_the_own_line_serves_another_queue_and_function_with_json(deploy: Deploy, redis_server: RedisServer) -> None:
    options = ["--queue-name", "reports", "--function-name", "report", "--json"]
    config = {"queue_name": "reports", "function_name": "report", "job_serializer": "json"}
    deployment = deploy(command=own_command(redis_server.url(), *options), config=config)
    deployment.ensure_worker()
    assert _double(deployment.environment()) == 42


async def test_a_pool_that_belongs_to_another_loop_serves(deploy: Deploy, redis_server: RedisServer) -> None:
    deployment = deploy()
    deployment.ensure_worker()
    pool = await create_pool(RedisSettings(port=redis_server.port))
    environment = {"executor": "arq", "executor_config": {"pool": pool}}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "pooled": environment})
    for _ in range(2):
        async with wove.weave(number=21) as w:

            @w.do(environment="pooled", delivery_timeout=30.0)
            def doubled(number: int) -> int:
                return 2 * number

        assert w.result["doubled"] == 42
    await pool.aclose(close_connection_pool=True)


async def test_settings_are_what_arq_expects_and_may_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_REDIS_URL", "redis://redis.example:6380/1")
    monkeypatch.setenv("WOVE_ARQ_QUEUE", "reports")
    settings = make_settings(functions=[run_payload, payload_function("other")], poll_delay=2.0)
    assert settings["redis_settings"] == RedisSettings(host="redis.example", port=6380, database=1)
    worker = create_worker(settings, handle_signals=False)
    assert worker.queue_name == "reports"
    assert worker.poll_delay_s == 2.0
    assert list(worker.functions) == ["wove.run", "other"]
