"""Every way in which a Job can end without a word, at a real API server: the error says what Kubernetes knows."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes_backend import KubernetesDeployment

from wove.errors import DeliveryError, DeliveryOrphanedError, TaskCancelledError
from wove.integrations.base import BackendAdapter
from wove.testing import tasks
from wove.testing.board import Visit
from wove.testing.stage import Running, Stage, poll_until

SECONDS = 60.0


@pytest.fixture
def stage(deployment: KubernetesDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def begin(stage: Stage, label: str) -> tuple[Running, Visit]:
    """Start a task and return when its weave knows that it runs."""
    running = stage.begin(tasks.wait_at, board=stage.board.address, label=label)
    return running, stage.wait_until_known(tasks.wait_at, label)


def lost(running: Running) -> DeliveryOrphanedError:
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    return error


def make_noise() -> Callable[[], None]:
    # From a function, so that it travels by value: the worker does not have this module.
    def crash() -> None:
        print("reading the archive", file=sys.stderr, flush=True)
        os._exit(3)

    return crash


def test_a_crash_reports_the_exit_code_and_the_end_of_the_output(stage: Stage) -> None:
    error = lost(stage.begin(make_noise()))
    assert (error.state, error.exit_code) == ("failed", 3)
    assert "reading the archive" in str(error)


def test_a_container_without_memory_is_reported_as_such(stage: Stage) -> None:
    stage.configure(annotations={"wove-test/fault": "oom", "wove-test/after": "1"})
    error = lost(stage.begin(tasks.wait_at, board=stage.board.address, label="hungry"))
    assert (error.state, error.exit_code) == ("failed", 137)
    assert "OOMKilled" in str(error)


def test_an_eviction_is_reported_as_such(stage: Stage) -> None:
    stage.configure(annotations={"wove-test/fault": "evict", "wove-test/after": "1"})
    error = lost(stage.begin(tasks.wait_at, board=stage.board.address, label="evicted"))
    assert "Evicted: The node was low on resource: memory." in str(error)


@pytest.mark.parametrize(
    ("fault", "limit", "words"),
    [
        ("image-pull", "start_failure_seconds", "ImagePull"),
        ("unschedulable", "unschedulable_seconds", "Insufficient cpu"),
    ],
)
def test_a_pod_that_does_not_start_is_given_up_and_removed(
    deployment: KubernetesDeployment, stage: Stage, fault: str, limit: str, words: str
) -> None:
    stage.configure(annotations={"wove-test/fault": fault}, ttl_seconds_after_finished=600, **{limit: 1.0})
    error = lost(stage.begin(tasks.add, left=1, right=2))
    assert error.state == "failed"
    assert words in str(error)
    poll_until(lambda: not _of_task(deployment, "add"), seconds=SECONDS, what="its Job is gone")


def test_a_deadline_of_the_job_is_reported_as_such(deployment: KubernetesDeployment, stage: Stage) -> None:
    stage.configure(active_deadline_seconds=3)
    running, visit = begin(stage, "late")
    # SIGTERM would let the worker report by itself.
    deployment.pause_process(visit.pid)
    error = lost(running)
    assert error.state == "failed"
    assert "DeadlineExceeded" in str(error)


def test_a_job_that_somebody_deletes_takes_its_task_along(deployment: KubernetesDeployment, stage: Stage) -> None:
    running, _ = begin(stage, "deleted")
    _delete_jobs(deployment, "wait-at")
    assert isinstance(running.failure(SECONDS), TaskCancelledError)


def test_a_job_that_somebody_deletes_is_noticed_where_its_worker_cannot_tell(
    deployment: KubernetesDeployment, stage: Stage
) -> None:
    running, visit = begin(stage, "deleted mutely")
    deployment.pause_process(visit.pid)
    _delete_jobs(deployment, "wait-at")
    error = lost(running)
    assert error.state == "gone"
    assert "deleted" in str(error)


def test_a_pod_that_somebody_deletes_by_force_is_noticed(deployment: KubernetesDeployment, stage: Stage) -> None:
    running, visit = begin(stage, "forced")
    deployment.pause_process(visit.pid)
    for pod in deployment.list("pods"):
        if "wait-at" in pod["metadata"]["name"]:
            path = f"/api/v1/namespaces/{deployment.namespace}/pods/{pod['metadata']['name']}"
            deployment.cluster.call("DELETE", path, {"gracePeriodSeconds": 0})
    error = lost(running)
    assert "deleted" in str(error)


def test_a_program_that_is_not_there_is_reported(stage: Stage) -> None:
    stage.configure(command=["/does/not/exist"])
    error = lost(stage.begin(tasks.add, left=1, right=2))
    assert error.exit_code == 128
    assert "StartError" in str(error)


def test_a_cancelled_task_says_so_itself(deployment: KubernetesDeployment, stage: Stage) -> None:
    options = {"delivery_cancel_mode": "require_ack", "delivery_timeout": 5.0}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="unwanted")
    stage.wait_until_known(tasks.wait_at, "unwanted")
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryError)
    # Nothing had to be assumed: the worker, or the end of its pod, has confirmed it.
    assert not any("may still go on" in note for note in getattr(error, "__notes__", []))
    poll_until(lambda: not _of_task(deployment, "wait-at"), seconds=SECONDS, what="its Job is gone")


def test_neither_payload_nor_token_can_be_seen_by_those_who_see_pods(
    deployment: KubernetesDeployment, stage: Stage
) -> None:
    payloads: list[dict[str, Any]] = []

    def noted(submit: Callable[..., Any]) -> Callable[..., Any]:
        async def submit_noted(adapter: BackendAdapter, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            payloads.append(payload)
            return await submit(adapter, payload, frame)

        return submit_noted

    from wove.environment.backend import BackendAdapterEnvironmentExecutor
    from wove_k8s import KubernetesJobsAdapter

    noting = type("Noting", (KubernetesJobsAdapter,), {"submit": noted(KubernetesJobsAdapter.submit)})
    stage.configure(BackendAdapterEnvironmentExecutor("kubernetes_jobs", adapter_class=noting))
    running, visit = begin(stage, "secretive")
    shown = str([deployment.list(kind) for kind in ("jobs", "pods")])
    with open(f"/proc/{visit.pid}/cmdline", "rb") as file:
        shown += file.read().decode()
    with open(f"/proc/{visit.pid}/environ", "rb") as file:
        shown += file.read().decode()
    (payload,) = payloads
    token = payload["callback_url"].rpartition("/")[2]
    for hidden in (token, payload["callback_key"], payload["args_pickle"], payload["callable_pickle"]):
        assert hidden not in shown
    stage.board.release("secretive")
    assert running.result(SECONDS) == "released"


def _of_task(deployment: KubernetesDeployment, task: str) -> list[str]:
    names = [job["metadata"]["name"] for job in deployment.list("jobs")]
    return [name for name in names if task in name]


def _delete_jobs(deployment: KubernetesDeployment, task: str) -> None:
    for name in _of_task(deployment, task):
        path = f"/apis/batch/v1/namespaces/{deployment.namespace}/jobs/{name}?propagationPolicy=Background"
        deployment.cluster.call("DELETE", path)
