"""The session with Ray that Wove makes where the program has none, and why it cannot be made."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from ray_cluster import RayCluster

from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove.testing.servers import free_port
from wove_ray import RayAdapter

pytestmark = pytest.mark.timeout(240)


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


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


PROGRAM = """
import sys
import ray
import wove
from wove import weave
from wove.testing import tasks

config = {"address": sys.argv[1]}
wove.config(default_environment="here", environments={
    "here": {"executor": "local"}, "there": {"executor": "ray", "executor_config": config}
})


def greet(name):
    print("nobody shall read this")
    return f"hello {name}"


def once():
    with weave(name="Ray") as w:
        w.do(environment="there")(greet)
    return w.result.greet


print(once(), ray.is_initialized())
wove.shutdown()
print(ray.is_initialized())
print(once())
"""


@pytest.mark.parametrize("as_client", [False, True], ids=["driver", "client"])
def test_a_session_that_wove_made_is_quiet_and_ends_with_wove(
    cluster: RayCluster, tmp_path: Path, as_client: bool
) -> None:
    program = tmp_path / "program.py"
    program.write_text(dedent(PROGRAM), encoding="utf-8")
    address = f"ray://127.0.0.1:{cluster.client_port}" if as_client else cluster.address
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), address],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200.0,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["hello Ray True", "False", "hello Ray"]
