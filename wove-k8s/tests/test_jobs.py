"""The adapter at a real API server, without a worker: each Job is created once, whatever becomes of the answers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from kubernetes_backend import KubernetesDeployment

from wove.errors import ConfigurationError, DeliveryError
from wove.testing.stage import poll_until
from wove_k8s import KubernetesJobsAdapter
from wove_k8s.connection import Connection, Unreachable


@pytest.fixture(autouse=True)
def _tidy(deployment: KubernetesDeployment) -> Iterator[None]:
    deployment.bring_backend_up()
    yield
    jobs = f"/apis/batch/v1/namespaces/{deployment.namespace}/jobs"
    deployment.cluster.call("DELETE", f"{jobs}?propagationPolicy=Background")
    # The same runs come again.
    _wait_until_gone(deployment)


@asynccontextmanager
async def started(deployment: KubernetesDeployment, **config: Any) -> AsyncIterator[KubernetesJobsAdapter]:
    given = {**deployment.environment()["executor_config"], **config}
    where = "http://127.0.0.1:1/wove/events/x"
    adapter = KubernetesJobsAdapter(name="kubernetes_jobs", config=given, callback_url=where, run_config={})
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def submission(run_id: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    delivery = changes.pop("delivery", {})
    payload = {"run_id": run_id, "task_name": "report", "callable_pickle": "c2VjcmV0", "deadline": None, **changes}
    return payload, {"run_id": run_id, "delivery": delivery}


def names(deployment: KubernetesDeployment) -> list[str]:
    return [job["metadata"]["name"] for job in deployment.list("jobs") if "deletionTimestamp" not in job["metadata"]]


async def test_a_task_is_a_job_and_a_secret_that_belongs_to_it(deployment: KubernetesDeployment) -> None:
    payload, frame = submission("report-1")
    async with started(deployment) as adapter:
        handle = await adapter.submit(payload, frame)
    (job,) = deployment.list("jobs")
    secrets = [each for each in deployment.list("secrets") if each["type"] == "Opaque"]
    assert repr(handle) == f"<Kubernetes Job {job['metadata']['name']}>"
    assert [each["metadata"]["ownerReferences"][0]["uid"] for each in secrets] == [job["metadata"]["uid"]]
    assert json.loads(base64.b64decode(secrets[0]["data"]["payload"])) == payload


async def test_many_jobs_are_created_at_once(deployment: KubernetesDeployment) -> None:
    async with started(deployment) as adapter:
        handles = await adapter.submit_many([submission(f"report-{number}") for number in range(40)])
    assert sorted(names(deployment)) == sorted(handle.name for handle in handles)  # type: ignore[union-attr]


async def test_a_task_of_any_name_becomes_a_job(deployment: KubernetesDeployment) -> None:
    async with started(deployment) as adapter:
        for number, task in enumerate(("Übergröße_" * 20, "", "日本語")):
            await adapter.submit(*submission(f"run-{number}", task_name=task))
    assert len(names(deployment)) == 3


async def test_a_job_that_is_submitted_twice_is_created_once(deployment: KubernetesDeployment) -> None:
    async with started(deployment) as adapter:
        first = await adapter.submit(*submission("report-1"))
        again = await adapter.submit(*submission("report-1"))
    assert first.uid == again.uid
    assert names(deployment) == [first.name]


@pytest.mark.parametrize("lost", ["jobs", "secrets"])
async def test_a_submission_whose_answer_was_lost_is_looked_up(
    deployment: KubernetesDeployment, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    call, asked = Connection.call, []

    async def losing(self: Connection, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = await call(self, method, path, **more)
        asked.append((method, path.rpartition("/")[2]))
        if asked.count(("POST", lost)) == 1 and asked[-1] == ("POST", lost):
            raise Unreachable("the connection broke", sent=True)
        return answer

    async with started(deployment) as adapter:
        monkeypatch.setattr(Connection, "call", losing)
        handle = await adapter.submit(*submission("report-1"))
        monkeypatch.undo()
    assert names(deployment) == [handle.name]
    if lost == "jobs":
        assert asked == [("POST", "jobs"), ("GET", handle.name), ("POST", "secrets")]


async def test_a_job_without_its_secret_is_removed(
    deployment: KubernetesDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Connection.call

    async def failing(self: Connection, method: str, path: str, **more: Any) -> dict[str, Any]:
        if (method, path.rpartition("/")[2]) == ("POST", "secrets"):
            raise Unreachable("the connection broke", sent=False)
        return await call(self, method, path, **more)

    monkeypatch.setattr(Connection, "call", failing)
    async with started(deployment) as adapter:
        with pytest.raises(ConnectionError):
            await adapter.submit(*submission("report-1"))
    assert names(deployment) == []


async def test_an_idempotency_key_is_one_job(deployment: KubernetesDeployment) -> None:
    delivery = {"delivery_idempotency_key": "account 7: März"}
    async with started(deployment) as adapter:
        first = await adapter.submit(*submission("report-1", delivery=delivery))
        with pytest.raises(DeliveryError, match="delivery_idempotency_key"):
            await adapter.submit(*submission("report-2", delivery=delivery))
        poll_until(partial(_is_complete, deployment, first.name), seconds=30.0, what="the Job is complete")
        # One that is over makes way.
        third = await adapter.submit(*submission("report-3", delivery=delivery))
    assert (third.name, third.uid == first.uid) == (first.name, False)


def _is_complete(deployment: KubernetesDeployment, name: str) -> bool:
    """Tell whether a Job is complete, and make it so if it is not, as soon as its controller has started its pod: it
    would overwrite what was written before.
    """
    path = f"/apis/batch/v1/namespaces/{deployment.namespace}/jobs/{name}/status"
    job = deployment.cluster.call("GET", path)
    complete = {"type": "Complete", "status": "True"}
    if any(complete.items() <= each.items() for each in job["status"].get("conditions", ())):
        return True
    if job["status"].get("active"):
        del job["metadata"]["resourceVersion"]
        job["status"] = {"conditions": [complete]}
        deployment.cluster.call("PUT", path, job)
    return False


async def test_a_cancelled_job_leaves_nothing(deployment: KubernetesDeployment) -> None:
    async with started(deployment) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        await adapter.cancel("report-1", handle, {})
        await adapter.cancel("report-1", handle, {})
        await asyncio.to_thread(_wait_until_gone, deployment)


def _wait_until_gone(deployment: KubernetesDeployment) -> None:
    # The Secret goes a moment after the Job.
    what = "Job and Secret are gone"
    poll_until(lambda: not any("wove-" in each for each in deployment.leftovers()), seconds=60.0, what=what)


async def test_a_cancel_spares_a_later_job_of_the_same_name(deployment: KubernetesDeployment) -> None:
    delivery = {"delivery_idempotency_key": "monthly-7"}
    async with started(deployment) as adapter:
        first = await adapter.submit(*submission("report-1", delivery=delivery))
        await adapter.cancel("report-1", first, {})
        second = await adapter.submit(*submission("report-2", delivery=delivery))
        await adapter.cancel("report-1", first, {})
    assert names(deployment) == [second.name]


async def test_what_the_cluster_refuses_is_a_delivery_error(deployment: KubernetesDeployment) -> None:
    patch = {"spec": {"containers": [{"name": "wove", "resources": {"limits": {"memory": "much"}}}]}}
    async with started(deployment, pod_template=patch) as adapter:
        (refused,) = await adapter.submit_many([submission("report-1")])
    assert isinstance(refused, DeliveryError)
    assert "Kubernetes refuses Job wove-report-" in str(refused)
    assert names(deployment) == []


async def test_a_large_payload_travels_in_the_secret_where_the_configuration_says_so(
    deployment: KubernetesDeployment,
) -> None:
    async with started(deployment, max_payload_bytes=900_000) as adapter:
        assert adapter.max_payload_bytes == 900_000
        await adapter.submit(*submission("report-1", args_pickle="a" * 700_000))
    with pytest.raises(ConfigurationError, match="max_payload_bytes must be at most 1,000,000"):
        async with started(deployment, max_payload_bytes=2_000_000):
            pass


async def test_a_factory_may_return_an_object_of_kubernetes_own_client(deployment: KubernetesDeployment) -> None:
    from kubernetes import client

    def factory(manifest: dict[str, Any], payload: dict[str, Any]) -> Any:
        container = client.V1Container(name="mine", image="example.org/mine:1", command=["true"])
        template = client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container], restart_policy="Never"))
        return client.V1Job(api_version="batch/v1", kind="Job", spec=client.V1JobSpec(template=template))

    async with started(deployment, job_factory=factory) as adapter:
        await adapter.submit(*submission("report-1"))
    (job,) = deployment.list("jobs")
    assert job["spec"]["template"]["spec"]["containers"][0]["name"] == "mine"
