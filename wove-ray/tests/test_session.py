"""Why there is no session with Ray, and none can be made."""

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove.testing.servers import free_port
from wove_ray import RayAdapter


async def start(**config: Any) -> None:
    """Start an adapter in a process without a session, and close it."""
    adapter = RayAdapter(name="ray", config=config, callback_url="http://127.0.0.1:1/wove/events/x", run_config={})
    try:
        await adapter.start()
    finally:
        await adapter.close()


class Greeting(socketserver.BaseRequestHandler):
    """Answers as soon as somebody has connected, and never again."""

    def handle(self) -> None:
        self.request.sendall(bytes(9))


@pytest.fixture
def greeting() -> Iterator[str]:
    """An address where something is, which is no Ray."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["", "ray://"])
async def test_a_cluster_that_is_not_there_is_named_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    import wove_ray.runs  # noqa: F401 - that alone takes seconds

    before = time.monotonic()
    with pytest.raises(ConnectionError, match=f"Ray at '{address}' cannot be reached"):
        await start(address=address)
    assert time.monotonic() - before < 10.0


@pytest.mark.parametrize("scheme", ["", "ray://"])
async def test_what_takes_connections_and_never_answers_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wove_ray.session._ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"{scheme}127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"Ray at '{address}' takes connections, and does not answer"):
            await start(address=address)


async def test_without_init_a_session_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="init is False, and this process has no session with Ray"):
        await start(init=False)


async def test_options_that_ray_does_not_know_are_an_error_of_the_configuration(greeting: str) -> None:
    with pytest.raises(ConfigurationError, match=r"init_options: ray.init\(\) refuses them: .*name_space"):
        await start(address=greeting, init_options={"name_space": "reports"})


async def test_ray_client_needs_a_package(greeting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingDispatchFeatureError, match=r'pip install "ray\[client\]"'):
        await start(address=f"ray://{greeting}")


class Ray:
    """`ray.init` of a Ray Client server that loses the processes of the first sessions."""

    def __init__(self, lost: int) -> None:
        self.calls = 0
        self._lost = lost

    def init(self, **options: Any) -> None:
        self.calls += 1
        if self.calls <= self._lost:
            raise ConnectionAbortedError(
                "Initialization failure from server:\nTraceback ...\nRuntimeError: Starting Ray client server failed. "
                "See ray_client_server_23000.err for detailed logs."
            )


async def test_a_session_whose_process_the_head_has_lost_is_tried_again(
    greeting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Ray(lost=1)
    monkeypatch.setattr(ray, "init", server.init)
    await start(address=f"ray://{greeting}")
    assert server.calls == 2


async def test_a_head_that_loses_all_processes_of_sessions_is_told_what_to_set(
    greeting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", Ray(lost=1000).init)
    with pytest.raises(ConnectionError, match="GRPC_ENABLE_FORK_SUPPORT=0") as caught:
        await start(address=f"ray://{greeting}")
    assert "Traceback" not in str(caught.value)


def test_a_session_that_is_closed_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from wove_ray.runs import Runs, Submitted
    from wove_ray.settings import read_settings

    def closed() -> None:
        raise RuntimeError("Ray has not been started yet.")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", closed)
    run = Submitted("run-1", object(), session="01000000")
    assert Runs(read_settings({"init": False}), lambda _: None).lost([run]) == [run]
