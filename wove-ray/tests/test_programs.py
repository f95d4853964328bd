"""Programs that Wove gives a session of Ray, or that close theirs: each is a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from ray_cluster import RayCluster

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def run_program(directory: Path, text: str, address: str) -> subprocess.CompletedProcess[str]:
    program = directory / "program.py"
    program.write_text(dedent(text), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program), address],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200.0,
        check=False,
    )


TWICE = """
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
    address = f"ray://127.0.0.1:{cluster.client_port}" if as_client else cluster.address
    done = run_program(tmp_path, TWICE, address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["hello Ray True", "False", "hello Ray"]


POSTED = """
import sys
import wove
from wove import weave
from wove.backend import receiver
from wove_ray import RayAdapter

RayAdapter.returns_from = 1
config = {"address": sys.argv[1]}
wove.config(default_environment="here", environments={
    "here": {"executor": "local"}, "there": {"executor": "ray", "executor_config": config}
})
take, carried = receiver.take_outcome, []


async def count(*arguments):
    carried.append(arguments)
    await take(*arguments)


receiver.take_outcome = count

with weave() as w:
    @w.do(range(6), environment="there")
    def squares(item):
        return item * item

print(w.result.squares)
print("posted:", 6 - len(carried))
wove.shutdown()
"""

CLOSED = """
import sys
import threading
import ray
import wove
from wove import weave
from wove.plugins import hookimpl, register

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
# It waits for a node that never comes: no worker says what becomes of it.
config = {"remote_options": {"num_cpus": 64}, "queue_timeout": 600.0}
wove.config(default_environment="here", environments={
    "here": {"executor": "local"}, "there": {"executor": "ray", "executor_config": config}
})


class Closing:
    @hookimpl
    def wove_task_submitted(self, run_id):
        # Later than the adapter asks Ray about the run.
        threading.Timer(1.0, close).start()


def close():
    ray.shutdown()
    AGAIN


register(Closing())


def never():
    pass


try:
    with weave() as w:
        w.do(environment="there")(never)
    w.result["never"]
except Exception as error:
    print(type(error).__name__, "session" in str(error))
wove.shutdown()
ray.shutdown()
"""


def test_through_ray_client_outcomes_are_posted(cluster: RayCluster, tmp_path: Path) -> None:
    done = run_program(tmp_path, POSTED, f"ray://127.0.0.1:{cluster.client_port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 1, 4, 9, 16, 25]", "posted: 6"]


@pytest.mark.parametrize("again", ["", "ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"])
def test_a_session_that_the_program_closes_ends_its_waiting_tasks(
    cluster: RayCluster, tmp_path: Path, again: str
) -> None:
    done = run_program(tmp_path, CLOSED.replace("AGAIN", again), cluster.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["DeliveryOrphanedError True"]
