"""Real clusters, where Ray has ways of its own: a program's session, resources, kills, its store."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_tasks
import pytest
import ray
from ray_cluster import RayCluster

import wove
from wove import weave
from wove.errors import ConfigurationError, DeliveryError, DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until
from wove_ray import RayAdapter

SECONDS = 120.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as cluster:
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.WARNING)
        yield cluster
        ray.shutdown()


class Deployment:
    """What a stage has to know of the cluster."""

    host = "127.0.0.1"

    def __init__(self, cluster: RayCluster) -> None:
        self._address = cluster.address

    def environment(self) -> dict[str, Any]:
        return {"executor": "ray", "executor_config": {"address": self._address}}


@pytest.fixture
def stage(cluster: RayCluster) -> Iterator[Stage]:
    cluster.node.ensure()
    with Stage(Deployment(cluster), seconds=SECONDS) as stage:  # type: ignore[arg-type]
        yield stage


# --- sessions ---


def test_the_program_s_own_session_is_used_and_left_open(stage: Stage) -> None:
    job = ray.get_runtime_context().get_job_id()
    assert stage.call(tasks.add, left=1, right=2) == 3
    wove.shutdown()
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_job_id() == job


def test_no_address_is_needed_beside_a_session(stage: Stage) -> None:
    stage.configure(address=None, init=False)
    assert stage.call(tasks.add, left=1, right=2) == 3


def test_another_cluster_is_refused_while_there_is_a_session(stage: Stage) -> None:
    stage.configure(address=f"127.0.0.1:{free_port()}")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, ConfigurationError)
    assert "has one session at a time" in str(error)


def test_environments_with_different_options_share_the_session(cluster: RayCluster, stage: Stage) -> None:
    environments = {
        name: {"executor": "ray", "executor_config": {"remote_options": {"num_cpus": cpus}}}
        for name, cpus in (("half", 0.5), ("whole", 1))
    }
    wove.config(environments=environments)
    with weave(left=1, right=2) as w:
        w.do(environment="half")(tasks.add)
        w.do(environment="whole")(tasks.run_asyncio)
    assert (w.result["add"], w.result["run_asyncio"]) == (3, "ran")


# --- what Ray is told ---


def test_options_reach_the_task(stage: Stage) -> None:
    stage.configure(remote_options={"runtime_env": {"env_vars": {"REPORT": "monthly"}}, "num_cpus": 0.5})
    assert stage.call(cluster_tasks.variable, name="REPORT") == "monthly"


def test_a_task_bears_its_name(stage: Stage) -> None:
    assert stage.call(cluster_tasks.own_name) == "wove: own_name"
    stage.configure(remote_options={"name": "report"})
    assert stage.call(cluster_tasks.own_name) == "report"


def test_a_hundred_tasks_export_one_function(stage: Stage) -> None:
    assert stage.call(tasks.add, left=1, right=2) == 3
    before = len(exported())
    values = stage.begin_map(tasks.double, range(100)).result(SECONDS)
    assert values == [2 * item for item in range(100)]
    assert len(exported()) == before


def exported() -> list[bytes]:
    from ray.experimental.internal_kv import _internal_kv_list

    found: list[bytes] = _internal_kv_list(b"RemoteFunction", namespace=b"fun")
    return found


def test_a_worker_without_wove_is_an_error_that_says_what_to_install(stage: Stage, tmp_path: Path) -> None:
    # It is found before the package, and says what the interpreter says where there is none.
    (tmp_path / "wove.py").write_text("raise ModuleNotFoundError(\"No module named 'wove'\", name='wove')")
    stage.configure(remote_options={"runtime_env": {"env_vars": {"PYTHONPATH": str(tmp_path)}}})
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryError)
    assert "Ray's workers have no Wove: install wove-core[dispatch]" in str(error)


# --- resources ---


def test_what_no_node_has_is_an_error_before_anything_is_submitted(stage: Stage) -> None:
    stage.configure(remote_options={"resources": {"licence": 1}})
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryError)
    assert "a task needs CPU 1, licence 1, and no node has that" in str(error)
    assert "set queue_timeout" in str(error)


def test_what_no_node_gets_in_time_is_an_error_that_says_what_is_missing(stage: Stage) -> None:
    stage.configure(remote_options={"resources": {"licence": 1}}, queue_timeout=0.5)
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert "has not started it within the queue_timeout of 0.5 s: a task needs CPU 1, licence 1" in str(error)


def test_a_task_that_has_begun_is_not_bound_to_the_queue_timeout(stage: Stage) -> None:
    stage.configure(queue_timeout=1.0)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="long")
    stage.wait_until_known(tasks.wait_at, "long")
    # That time passes is what this is about.
    assert not running.wait(2.0)
    stage.board.release("long")
    assert running.result(SECONDS) == "released"


def test_a_task_waits_for_a_node_that_is_not_there_yet(cluster: RayCluster, stage: Stage) -> None:
    stage.configure(queue_timeout=SECONDS)
    cluster.node.kill()
    running = stage.begin(tasks.add, left=1, right=2)
    stage.journal.wait_for_submission("add", seconds=SECONDS)
    assert not running.wait(0.5)
    cluster.node.ensure()
    assert running.result(SECONDS) == 3


# --- cancels ---


def test_a_task_that_catches_everything_loses_its_process(stage: Stage) -> None:
    stage.configure(cancel_grace=0.5)
    assert how_it_ended(stage) == "vanished"


def test_force_kills_at_once(stage: Stage) -> None:
    stage.configure(force_cancel=True)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="unwanted")
    (visit,) = stage.board.wait_for("unwanted", seconds=SECONDS)
    running.abandon()
    assert stage.board.wait_for_end(visit, seconds=SECONDS) == "vanished"


def test_without_force_the_task_is_left_to_its_end(stage: Stage) -> None:
    stage.configure(force_cancel=False)
    assert how_it_ended(stage) == "stopped: KeyboardInterrupt"


def how_it_ended(stage: Stage) -> str:
    running = stage.begin(cluster_tasks.insist, board=stage.board.address, label="stubborn")
    # Nothing that the worker hears from its weave comes before Ray's interrupt then.
    visit = stage.wait_until_known(cluster_tasks.insist, "stubborn")
    running.abandon()
    assert running.wait(SECONDS)
    (again,) = stage.board.wait_for("interrupted", seconds=SECONDS)
    try:
        # Longer than the grace of the test that expects a kill.
        return stage.board.wait_for_end(again, seconds=5.0)
    except TimeoutError:
        stage.board.release("interrupted")
        stage.board.wait_for_end(again, seconds=SECONDS)
        return stage.board.wait_for_end(visit, seconds=SECONDS)


# --- large arguments ---


def test_what_the_items_of_a_map_share_is_stored_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[int] = []
    put = ray.put

    def measured(value: bytes) -> Any:
        stored.append(len(value))
        return put(value)

    monkeypatch.setattr(ray, "put", measured)
    blob = tasks.make_blob(1_000_000)
    values = stage.begin_map(cluster_tasks.length_of, range(20), blob=blob).result(SECONDS)
    assert values == [1_000_000 + item for item in range(20)]
    assert len(stored) == 1


def test_a_stored_argument_is_the_task_s_own(stage: Stage) -> None:
    table = list(range(50_000))
    assert stage.begin_map(cluster_tasks.change, [1, 2], table=table).result(SECONDS) == [1, 2]
    assert table[0] == 0


def test_what_is_left_with_the_weave_is_fetched_there(stage: Stage) -> None:
    stage.configure(max_payload_bytes=4096)
    # Too small for Ray's store, and too large for the payload.
    assert stage.call(cluster_tasks.length_of, item=1, blob=tasks.make_blob(30_000)) == 30_001


# --- outcomes that come back as the values of Ray's tasks ---


@pytest.fixture
def returned(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(RayAdapter, "returns_from", 1)
    return stage


def test_an_outcome_that_dies_with_its_process_is_an_error_soon(returned: Stage) -> None:
    error = returned.begin(cluster_tasks.end_with_the_outcome).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert "WorkerCrashedError" in str(error)


def test_an_outcome_that_ray_has_survives_its_process(returned: Stage) -> None:
    pid = returned.call(cluster_tasks.end_after_the_outcome)
    assert returned.call(tasks.add, left=1, right=2) == 3
    poll_until(lambda: not Path(f"/proc/{pid}").exists(), seconds=SECONDS, what="the end of the process")


def test_an_outcome_that_is_too_large_for_the_receiver_is_an_error_that_says_so(returned: Stage) -> None:
    returned.configure(callback_max_bytes=20_000)
    error = returned.begin(tasks.make_blob, size=30_000).failure(SECONDS)
    assert "callback_max_bytes" in str(error)
