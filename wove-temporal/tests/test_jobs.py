"""What the adapter starts on a real server, seen from the server's side; no worker takes anything here."""

import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporal_backend import TemporalServer, open_jobs
from temporalio.client import ActivityExecutionDescription, Client
from temporalio.common import Priority, RetryPolicy

from tests.support.relay import Relay
from tests.support.servers import HOST
from wove.errors import ConfigurationError, DeliveryError
from wove.testing.servers import free_port
from wove_temporal import TemporalAdapter


@asynccontextmanager
async def started(server: TemporalServer, **config: Any) -> AsyncIterator[TemporalAdapter]:
    config = {"target_host": server.address, "task_queue": "nobody", **config}
    adapter = TemporalAdapter(name="temporal", config=config, callback_url="http://127.0.0.1:1/x", run_config={})
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def submission(run_id: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    delivery = changes.pop("delivery", {})
    payload = {"run_id": run_id, "task_name": "report", "callable_pickle": "c2VjcmV0", "deadline": None, **changes}
    return payload, {"run_id": run_id, "delivery": delivery}


async def described(server: TemporalServer, activity_id: str) -> ActivityExecutionDescription:
    client = await Client.connect(server.address)
    return await client.get_activity_handle(activity_id).describe()


async def test_an_activity_carries_the_payload(temporal_server: TemporalServer) -> None:
    payload, frame = submission("carries-1")
    async with started(temporal_server) as adapter:
        await adapter.submit(payload, frame)
        client = await Client.connect(temporal_server.address)
        found = await client.get_activity_handle("wove-carries-1").describe(include_input=True)
    assert (found.activity_type, found.task_queue, await found.input()) == ("wove.run", "nobody", [payload])


async def test_temporal_itself_makes_one_attempt(temporal_server: TemporalServer) -> None:
    async with started(temporal_server) as adapter:
        await adapter.submit(*submission("attempt-1"))
    found = await described(temporal_server, "wove-attempt-1")
    assert found.retry_policy is not None
    assert found.retry_policy.maximum_attempts == 1
    assert found.heartbeat_timeout == timedelta(seconds=10)


async def test_options_of_the_configuration_reach_the_server(temporal_server: TemporalServer) -> None:
    timeouts = {
        "schedule_to_close_timeout": 50,
        "schedule_to_start_timeout": 20,
        "start_to_close_timeout": 30,
        "heartbeat_timeout": 5,
    }
    options = {
        "workflow_id_prefix": "monthly-",
        "retry_policy": {"maximum_attempts": 3, "initial_interval": 2},
        "priority": {"priority_key": 2, "fairness_key": "acme"},
        "start_options": {"start_delay": 10, "summary": "the report"},
    }
    async with started(temporal_server, **timeouts, **options) as adapter:
        await adapter.submit(*submission("options-1"))
    found = await described(temporal_server, "monthly-options-1")
    assert [getattr(found, name).total_seconds() for name in timeouts] == list(timeouts.values())
    assert found.retry_policy is not None
    assert (found.retry_policy.maximum_attempts, found.retry_policy.initial_interval) == (3, timedelta(seconds=2))
    assert (found.priority.priority_key, found.priority.fairness_key) == (2, "acme")
    assert found.start_delay == timedelta(seconds=10)


async def test_the_deadline_limits_how_long_a_job_waits_and_runs(temporal_server: TemporalServer) -> None:
    async with started(temporal_server) as adapter:
        await adapter.submit(*submission("limited-1", deadline=time.time() + 100))
        detached = {"delivery_orphan_policy": "detach"}
        await adapter.submit(*submission("limited-2", deadline=time.time() + 100, delivery=detached))
    limited = (await described(temporal_server, "wove-limited-1")).schedule_to_close_timeout
    assert limited is not None
    assert 100 <= limited.total_seconds() <= 106
    assert not (await described(temporal_server, "wove-limited-2")).schedule_to_close_timeout


async def test_an_idempotency_key_is_the_id_and_makes_way_when_it_is_over(temporal_server: TemporalServer) -> None:
    delivery = {"delivery_idempotency_key": "account 7: März"}
    async with started(temporal_server) as adapter:
        first = await adapter.submit(*submission("key-1", delivery=delivery))
        again = await adapter.submit(*submission("key-1", delivery=delivery))
        assert again is first, "the same run, submitted twice"
        with pytest.raises(DeliveryError, match="idempotency key is in flight in another weave"):
            await adapter.submit(*submission("key-2", delivery=delivery))
        await adapter.cancel("key-1", first, {})
        await adapter.submit(*submission("key-3", delivery=delivery))
    found = await described(temporal_server, "wove-account 7: März")
    assert found.task_queue == "nobody"


async def test_a_key_that_may_not_be_used_again_is_refused(temporal_server: TemporalServer) -> None:
    delivery = {"delivery_idempotency_key": "once"}
    async with started(temporal_server, start_options={"id_reuse_policy": "REJECT_DUPLICATE"}) as adapter:
        first = await adapter.submit(*submission("once-1", delivery=delivery))
        await adapter.cancel("once-1", first, {})
        with pytest.raises(DeliveryError, match="the id_reuse_policy in start_options allows no second one"):
            await adapter.submit(*submission("once-2", delivery=delivery))


@pytest.mark.parametrize("config", [{}, {"workflow": "wove.run"}, {"workflow": "ReportWorkflow"}])
async def test_a_queued_job_that_is_given_up_is_gone(temporal_server: TemporalServer, config: dict[str, Any]) -> None:
    async with started(temporal_server, **config) as adapter:
        submitted = await adapter.submit(*submission("unwanted-1"))
        await adapter.cancel("unwanted-1", submitted, {})
        run_id, state = await anext(adapter.watch())
        assert (run_id, state.phase) == ("unwanted-1", "cancelled")
        await adapter.cancel("unwanted-1", submitted, {})  # Once more: it is over.
    client = await Client.connect(temporal_server.address)
    assert not {job for job in await open_jobs(client) if "unwanted" in job}


@pytest.mark.parametrize("config", [{}, {"workflow": "wove.run"}])
async def test_a_job_that_no_worker_takes_in_time_says_so(
    temporal_server: TemporalServer, config: dict[str, Any]
) -> None:
    async with started(temporal_server, schedule_to_start_timeout=0.5, **config) as adapter:
        await adapter.submit(*submission("late-1", deadline=time.time() - 4.0))
        run_id, state = await anext(adapter.watch())
    assert (run_id, state.phase) == ("late-1", "failed")
    assert "timed out" in (state.reason or "")


async def test_that_no_worker_is_there_is_told_at_the_start(
    temporal_server: TemporalServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="wove"):
        async with started(temporal_server):
            pass
    (record,) = (each for each in caplog.records if "No worker polls" in each.getMessage())
    assert f"--address {temporal_server.address} --namespace default --task-queue nobody" in record.getMessage()


async def test_a_client_of_the_project_is_used_and_stays_usable(temporal_server: TemporalServer) -> None:
    client = await Client.connect(temporal_server.address)
    adapter = TemporalAdapter(name="temporal", config={"client": client}, callback_url="", run_config={})
    await adapter.start()
    await adapter.submit(*submission("given-1"))
    await adapter.close()
    assert (await client.get_activity_handle("wove-given-1").describe()).task_queue == "wove"


async def test_a_client_may_be_made_by_a_function(temporal_server: TemporalServer) -> None:
    async def connect() -> Client:
        return await Client.connect(temporal_server.address)

    adapter = TemporalAdapter(name="temporal", config={"client": connect}, callback_url="", run_config={})
    await adapter.start()
    await adapter.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"namespace": "absent"}, "has no namespace 'absent'"),
        (
            {"target_host": None, "client": "nowhere.at_all:client"},
            "client: 'nowhere.at_all:client' cannot be imported",
        ),
        ({"target_host": None, "client": "os:getpid"}, "client: a int is not a temporalio.client.Client"),
        ({"connect_options": {"retry_config": 5}}, "connect_options: Temporal's client does not take them"),
    ],
)
async def test_what_leads_to_no_server_is_named(
    temporal_server: TemporalServer, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with started(temporal_server, **config):
            pass
    assert message in str(caught.value)


async def test_a_server_that_is_not_there_is_named_without_credentials(temporal_server: TemporalServer) -> None:
    address = f"{HOST}:{free_port()}"
    with pytest.raises(ConnectionError) as caught:
        async with started(temporal_server, target_host=address, connect_options={"api_key": "secret", "tls": False}):
            pass
    assert address in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("config", [{}, {"workflow": "wove.run"}])
async def test_a_server_that_goes_away_in_mid_weave_is_named_with_what_was_seen_and_what_to_do(
    temporal_server: TemporalServer, config: dict[str, Any]
) -> None:
    with Relay(temporal_server.port) as relay:
        address = f"{HOST}:{relay.port}"
        async with started(temporal_server, target_host=address, **config) as adapter:
            submitted = await adapter.submit(*submission("away-1"))
            relay.shut()
            for asking in (adapter.submit(*submission("away-2")), adapter.cancel("away-1", submitted, {})):
                with pytest.raises(ConnectionError) as caught:
                    await asking
                message = str(caught.value)
                assert f"Temporal at {address} cannot be reached (UNAVAILABLE: " in message
                assert f"temporal operator cluster health --address {address}" in message
                assert "those with 'retries' are tried again" in message
            relay.open()
            await adapter.cancel("away-1", submitted, {})


async def test_a_server_that_takes_connections_and_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wove_temporal.connection.ANSWER_TIMEOUT", timedelta(seconds=0.2))
    with socket.create_server((HOST, 0)) as mute:
        address = f"{HOST}:{mute.getsockname()[1]}"
        config = {"target_host": address, "connect_options": {"connect_timeout": timedelta(seconds=0.2)}}
        adapter = TemporalAdapter(name="temporal", config=config, callback_url="", run_config={})
        with pytest.raises(ConnectionError, match=f"Temporal at {address} takes connections, and does not answer"):
            await adapter.start()
        await adapter.close()


@pytest.mark.parametrize("config", [{}, {"workflow": "wove.run"}])
async def test_a_server_that_falls_silent_in_mid_weave_is_named(
    temporal_server: TemporalServer, config: dict[str, Any]
) -> None:
    with Relay(temporal_server.port) as relay:
        address = f"{HOST}:{relay.port}"
        config |= {"target_host": address, "start_options": {"rpc_timeout": 0.2}}
        async with started(temporal_server, **config) as adapter:
            relay.hold()
            with pytest.raises(ConnectionError, match=f"Temporal at {address} cannot be reached"):
                await adapter.submit(*submission("silent-1"))


async def test_a_workflow_gets_the_options_of_its_activity(temporal_server: TemporalServer) -> None:
    payload, frame = submission("workflow-1")
    config = {"workflow": "wove.run", "heartbeat_timeout": 5, "retry_policy": RetryPolicy(maximum_attempts=2)}
    async with started(temporal_server, priority=Priority(priority_key=1), **config) as adapter:
        await adapter.submit(payload, frame)
        client = await Client.connect(temporal_server.address)
        history = await client.get_workflow_handle("wove-workflow-1").fetch_history()
    attributes = history.events[0].workflow_execution_started_event_attributes
    arguments = await client.data_converter.decode(attributes.input.payloads)
    assert arguments[0] == payload
    assert arguments[1]["heartbeat_timeout"] == 5.0
    assert arguments[1]["retry_policy"]["maximum_attempts"] == 2
    assert attributes.priority.priority_key == 1
