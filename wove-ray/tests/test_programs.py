"""Programs that Wove gives a session of Ray, or that close theirs: each is a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_cluster import RayCluster
from ray_programs import REPLACED, TWICE, run_program

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as cluster:
        yield cluster


def test_a_session_that_wove_made_is_quiet_and_ends_with_wove(cluster: RayCluster, tmp_path: Path) -> None:
    done = run_program(tmp_path, TWICE, cluster.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["hello Ray True", "False", "hello Ray"]


def test_a_session_that_the_program_makes_after_wove_s_is_left_open(cluster: RayCluster, tmp_path: Path) -> None:
    done = run_program(tmp_path, REPLACED, cluster.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2", "4", "True"]


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


@pytest.mark.parametrize("again", ["", "ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"])
def test_a_session_that_the_program_closes_ends_its_waiting_tasks(
    cluster: RayCluster, tmp_path: Path, again: str
) -> None:
    done = run_program(tmp_path, CLOSED.replace("AGAIN", again), cluster.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["DeliveryOrphanedError True"]
