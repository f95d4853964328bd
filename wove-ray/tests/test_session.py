"""Why there is no session with Ray, and none can be made."""

import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

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


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address where somebody accepts connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
async def test_a_cluster_that_is_not_there_is_named_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    import wove_ray.runs  # noqa: F401 - that alone takes seconds

    before = time.monotonic()
    with pytest.raises(ConnectionError, match=f"Ray at '{address}' cannot be reached"):
        await start(address=address)
    assert time.monotonic() - before < 10.0


async def test_without_init_a_session_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="init is False, and this process has no session with Ray"):
        await start(init=False)


async def test_options_that_ray_does_not_know_are_an_error_of_the_configuration(deaf: str) -> None:
    with pytest.raises(ConfigurationError, match=r"init_options: ray.init\(\) refuses them: .*name_space"):
        await start(address=deaf, init_options={"name_space": "reports"})


async def test_ray_client_needs_a_package(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingDispatchFeatureError, match=r'pip install "ray\[client\]"'):
        await start(address=f"ray://{deaf}")
