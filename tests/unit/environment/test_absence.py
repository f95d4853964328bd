"""What a user is told to do about a worker service that is not there."""

from typing import Any

import pytest

from wove import GrpcEnvironmentExecutor, HttpEnvironmentExecutor, WebSocketEnvironmentExecutor
from wove.environment.absence import advice_for_absence
from wove.environment.network import NetworkExecutor

EXECUTORS: dict[str, type[NetworkExecutor]] = {
    "http": HttpEnvironmentExecutor,
    "websocket": WebSocketEnvironmentExecutor,
    "grpc": GrpcEnvironmentExecutor,
}
SIGNED = {"type": "signed", "secret": "a secret of more than sixteen bytes"}
FOR_OTHERS = "--security env:WOVE_WORKER_SECRET --tls-cert cert.pem --tls-key key.pem"


def advice(transport: str, **config: Any) -> str:
    return advice_for_absence(EXECUTORS[transport]().read_settings("workers", config))


@pytest.mark.parametrize(
    ("transport", "config", "command"),
    [
        ("http", {"url": "http://127.0.0.1:8901/wove/tasks"}, "http --host 127.0.0.1 --port 8901"),
        ("http", {"url": "http://localhost:8901/"}, "http --host 127.0.0.1 --port 8901 --path /"),
        ("http", {"url": "http://[::1]:8901/a(b)?x=1"}, "http --host ::1 --port 8901 --path '/a(b)'"),
        ("websocket", {"url": "ws://127.0.0.1:8901/wove/tasks"}, "websocket --host 127.0.0.1 --port 8901"),
        ("grpc", {"target": "127.0.0.1:50052"}, "grpc --host 127.0.0.1 --port 50052"),
        ("grpc", {"target": "localhost"}, "grpc --host 127.0.0.1"),
    ],
)
def test_the_command_starts_the_service_where_it_is_looked_for(
    transport: str, config: dict[str, Any], command: str
) -> None:
    text = advice(transport, **config)
    assert text.startswith("Is the service running, and does this host reach it? ")
    assert text.endswith(f"Wove's own is started with `python -m wove.services {command}`.")


def test_a_service_for_other_machines_is_started_there_and_safely() -> None:
    text = advice("http", url="https://workers.internal/wove/tasks", security=SIGNED)
    command = f"python -m wove.services http --host 0.0.0.0 --port 443 {FOR_OTHERS}"
    assert text.endswith(f"Wove's own is started on its own host with `{command}`.")


def test_no_secret_is_in_the_command() -> None:
    text = advice("grpc", target="127.0.0.1:50051", security=SIGNED)
    assert "--security env:WOVE_WORKER_SECRET" in text
    assert "sixteen" not in text
