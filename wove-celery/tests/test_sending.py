"""What reaches the broker, and what is said where there is none."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery_backend import RedisBroker

import wove
from tests.support.servers import HOST
from wove import weave
from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove.runtime import runtime
from wove.testing import tasks
from wove.testing.servers import free_port
from wove_celery import CeleryAdapter


@pytest.fixture(autouse=True)
def wove_as_before() -> Iterator[None]:
    before = runtime.snapshot()
    yield
    wove.shutdown()
    runtime.restore(before)


def configure(**executor_config: Any) -> None:
    there = {"executor": "celery", "executor_config": executor_config}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": there})


def add_there() -> Any:
    with weave(left=1, right=2) as w:
        w.do(environment="there")(tasks.add)
    return w.result["add"]


class Messages:
    """Submits with an adapter to a queue that nobody reads, and reads what arrived."""

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker

    async def of(self, *payloads: dict[str, Any], **config: Any) -> list[dict[str, Any]]:
        config = {"broker_url": self._broker.celery_url(), "queue": "unread", **config}
        adapter = CeleryAdapter(name="celery", config=config, callback_url="http://here", run_config={})
        try:
            await adapter.start()
            frames = [{"run_id": payload["run_id"]} for payload in payloads]
            if len(payloads) == 1:
                handles = [await adapter.submit(payloads[0], frames[0])]
            else:
                handles = list(await adapter.submit_many(list(zip(payloads, frames, strict=True))))
            assert handles == [payload["run_id"] for payload in payloads]
        finally:
            await adapter.close()
        with redis.Redis(HOST, self._broker.port) as client:
            found = [json.loads(message) for message in reversed(client.lrange("unread", 0, -1))]
            client.delete("unread")
        return found


@pytest.fixture
def messages(redis_server: RedisBroker) -> Messages:
    return Messages(redis_server)


def payload_of(run_id: str, **more: Any) -> dict[str, Any]:
    return {"run_id": run_id, "task_name": "report", "callable_pickle": "x" * 2000, **more}


async def test_the_payload_is_the_only_argument_and_nothing_of_it_is_in_the_headers(messages: Messages) -> None:
    payload = payload_of("report-1")
    (message,) = await messages.of(payload)
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs) == ([payload], {})
    headers = message["headers"]
    assert (headers["task"], headers["id"], headers["shadow"]) == ("wove.run", "report-1", "report")
    assert headers["ignore_result"] is True
    assert "xxx" not in json.dumps(headers)


async def test_the_options_of_celery_arrive(messages: Messages) -> None:
    (message,) = await messages.of(
        payload_of("report-1"),
        task_name="myapp.wove_task",
        priority=0,
        time_limit=60,
        soft_time_limit=50,
        eta=datetime(2030, 1, 1, tzinfo=UTC),
        headers={"tenant": "acme"},
        send_task_options={"shadow": "mine"},
    )
    headers = message["headers"]
    assert headers["task"] == "myapp.wove_task"
    assert headers["timelimit"] == [60, 50]
    assert headers["eta"] == "2030-01-01T00:00:00+00:00"
    assert (headers["tenant"], headers["shadow"]) == ("acme", "mine")
    assert message["properties"]["priority"] == 0


async def test_a_task_expires_with_the_deadline_of_its_weave(messages: Messages) -> None:
    deadline = time.time() + 100
    first, second = await messages.of(payload_of("a", deadline=deadline), payload_of("b", deadline=None))
    assert abs(datetime.fromisoformat(first["headers"]["expires"]).timestamp() - deadline) < 2
    assert second["headers"]["expires"] is None


async def test_an_earlier_expiry_of_the_configuration_counts(messages: Messages) -> None:
    deadline = time.time() + 100
    first, second = await messages.of(payload_of("a", deadline=deadline), payload_of("b"), expires=10)
    for message in (first, second):
        assert datetime.fromisoformat(message["headers"]["expires"]).timestamp() - time.time() < 11


async def test_the_trace_of_the_weave_is_in_the_headers(messages: Messages) -> None:
    (message,) = await messages.of(payload_of("a", trace={"traceparent": "00-1-2-01"}), headers={"tenant": "acme"})
    assert message["headers"]["traceparent"] == "00-1-2-01"
    assert message["headers"]["tenant"] == "acme"


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_down_is_named_without_credentials(scheme: str) -> None:
    port = free_port()
    configure(broker_url=f"{scheme}://someone:pa55word@{HOST}:{port}//")
    started = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        add_there()
    assert time.monotonic() - started < 8.0
    text = str(caught.value)
    assert f"The Celery broker at {scheme}://{HOST}:{port}/" in text
    assert "pa55word" not in text
    assert "someone" not in text


def test_an_unknown_kind_of_broker_is_named_at_start() -> None:
    configure(broker_url="radis://localhost")
    with pytest.raises(ConfigurationError, match=r"no broker of the kind 'radis'. Did you mean 'redis'\?"):
        add_there()


def test_a_missing_client_package_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kombu.transport.redis.redis", None)
    configure(broker_url="redis://localhost:1/9")
    with pytest.raises(MissingDispatchFeatureError, match=r'pip install "wove-celery\[redis\]"'):
        add_there()


def test_an_import_path_without_an_app_is_named_at_start() -> None:
    configure(app="no_such_module.celery:app")
    with pytest.raises(ConfigurationError, match=r"'no_such_module.celery:app' leads to no Celery app"):
        add_there()


def test_a_wrong_key_names_the_environment_and_the_right_key() -> None:
    configure(broker_url="redis://localhost", task_nmae="x")
    with pytest.raises(ConfigurationError, match=r"Environment 'there'.*Did you mean 'task_name'\?"):
        add_there()
