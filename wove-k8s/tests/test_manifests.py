"""What is created in the cluster: names that are legal, pods as the configuration wants them, payloads out of sight."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_k8s.manifests import RUN_ANNOTATION, SESSION_LABEL, Manifests, merged
from wove_k8s.names import LABEL, job_name
from wove_k8s.settings import read_settings

PAYLOAD = {"run_id": "report-1", "task_name": "report", "callable_pickle": "c2VjcmV0", "callback_url": "http://h/t0ken"}
FRAME = {"run_id": "report-1", "delivery": {}}


def made(factory: Callable[..., Any] | None = None, **config: Any) -> Manifests:
    settings = read_settings({"image": "example.org/reports:1", **config})
    return Manifests(settings.job, settings.pod, namespace="reports", session="5e55", factory=factory)


def job(**config: Any) -> dict[str, Any]:
    return made(**config).job(PAYLOAD, FRAME)


def pod(**config: Any) -> dict[str, Any]:
    spec: dict[str, Any] = job(**config)["spec"]["template"]["spec"]
    return spec


# --- names ---


@pytest.mark.parametrize(
    "task", ["report", "Übergröße", "a" * 300, "-x-", "snake_case.task:1", "", "日本語", "A  b--C"]
)
def test_a_name_is_legal_whatever_the_task_is_called(task: str) -> None:
    name = job_name("wove", task, "run-1")
    assert LABEL.fullmatch(name)
    assert "--" not in name
    # Kubernetes appends six characters for the pod's name, which becomes a host name.
    assert len(name) <= 57


def test_a_name_is_that_of_one_run_only() -> None:
    names = {job_name("wove", "a" * 300, f"run-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert job_name("wove", "report", "run-1") == job_name("wove", "report", "run-1")


# --- secrecy ---


def test_the_payload_is_in_the_secret_alone() -> None:
    manifests = made()
    manifest = manifests.job(PAYLOAD, FRAME)
    assert "c2VjcmV0" not in json.dumps(manifest)
    assert "t0ken" not in json.dumps(manifest)
    secret = manifests.secret(PAYLOAD, {"metadata": {"name": "wove-report", "uid": "u-1"}})
    assert json.loads(base64.b64decode(secret["data"]["payload"])) == PAYLOAD
    assert secret["immutable"] is True
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", "wove-report", "u-1")


def test_the_pod_mounts_the_secret_of_its_run() -> None:
    spec = pod()
    (volume,) = spec["volumes"]
    assert volume["secret"]["secretName"] == made().secret_name("report-1")
    (mount,) = spec["containers"][0]["volumeMounts"]
    (variable,) = spec["containers"][0]["env"]
    assert variable == {"name": "WOVE_BACKEND_PAYLOAD_FILE", "value": f"{mount['mountPath']}/payload"}


# --- settings ---


def test_a_plain_job_runs_one_pod_once_and_is_removed() -> None:
    spec = job()["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 60)
    assert "activeDeadlineSeconds" not in spec
    assert (pod()["restartPolicy"], pod()["automountServiceAccountToken"]) == ("Never", False)
    assert pod()["containers"][0]["command"] == ["python", "-m", "wove.backend_worker"]


def test_a_job_ends_soon_after_nobody_wants_it_any_more() -> None:
    payload = {**PAYLOAD, "deadline": time.time() + 100}
    assert 100 <= made().job(payload, FRAME)["spec"]["activeDeadlineSeconds"] <= 106
    assert made(active_deadline_seconds=50).job(payload, FRAME)["spec"]["activeDeadlineSeconds"] == 50
    detached = {**FRAME, "delivery": {"delivery_orphan_policy": "detach"}}
    assert "activeDeadlineSeconds" not in made().job(payload, detached)["spec"]


def test_jobs_and_pods_bear_the_labels_and_annotations() -> None:
    manifest = job(labels={"team": "a", SESSION_LABEL: "mine"}, annotations={"example.org/x": "1"})
    for metadata in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
        assert metadata["labels"] == {"team": "a", "app.kubernetes.io/managed-by": "wove", SESSION_LABEL: "5e55"}
        assert metadata["annotations"] == {"example.org/x": "1", RUN_ANNOTATION: "report-1"}


def test_each_setting_of_the_pod_has_its_place() -> None:
    spec = pod(
        resources={"limits": {"memory": "1Gi"}},
        service_account="reports",
        env={"REGION": "eu"},
        env_from=[{"secretRef": {"name": "database"}}],
        node_selector={"pool": "batch"},
        tolerations=[{"key": "batch", "operator": "Exists"}],
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "d"}, "mountPath": "/data", "readOnly": True}],
    )
    container = spec["containers"][0]
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert container["env"][0] == {"name": "REGION", "value": "eu"}
    assert container["envFrom"] == [{"secretRef": {"name": "database"}}]
    assert container["volumeMounts"][0] == {"name": "data", "mountPath": "/data", "readOnly": True}
    assert spec["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "d"}}
    assert (spec["serviceAccountName"], spec["nodeSelector"]) == ("reports", {"pool": "batch"})
    assert spec["tolerations"] == [{"key": "batch", "operator": "Exists"}]
    assert "automountServiceAccountToken" not in spec


def test_a_patch_changes_the_pod_and_keeps_what_it_does_not_name() -> None:
    spec = pod(
        env={"A": "1", "B": "2"},
        pod_template={
            "spec": {
                "priorityClassName": "low",
                "enableServiceLinks": None,
                "containers": [
                    {"name": "wove", "imagePullPolicy": "Always", "env": [{"name": "B", "value": "3"}]},
                    {"name": "proxy", "image": "example.org/proxy:1"},
                ],
            }
        },
    )
    worker, proxy = spec["containers"]
    assert (spec["priorityClassName"], worker["image"], worker["imagePullPolicy"]) == (
        "low",
        "example.org/reports:1",
        "Always",
    )
    assert [entry["value"] for entry in worker["env"]][:2] == ["1", "3"]
    assert proxy["image"] == "example.org/proxy:1"
    assert "enableServiceLinks" not in spec


def test_merging_replaces_lists_without_names_and_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": [1, 2]}, "c": 1}
    assert merged(base, {"a": {"b": [3]}, "d": {"e": None}}) == {"a": {"b": [3]}, "c": 1, "d": {}}
    assert base == {"a": {"b": [1, 2]}, "c": 1}


# --- factories ---


def test_a_factory_changes_the_job_of_each_task() -> None:
    def factory(manifest: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
        manifest["spec"]["parallelism"] = len(payload["task_name"])
        return manifest

    assert made(factory).job(PAYLOAD, FRAME)["spec"]["parallelism"] == 6


def test_what_a_factory_makes_gets_its_name_its_marks_and_the_payload() -> None:
    def factory(manifest: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
        container = {"name": "mine", "image": "example.org/mine:1"}
        return {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [container]}}}}

    manifest = made(factory).job(PAYLOAD, FRAME)
    template = manifest["spec"]["template"]
    assert manifest["metadata"]["name"] == job_name("wove", "report", "report-1")
    assert template["metadata"]["labels"][SESSION_LABEL] == "5e55"
    assert template["spec"]["containers"][0]["volumeMounts"][0]["name"] == "wove-payload"
    assert template["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("result", [None, {}, {"spec": {"template": {"spec": {"containers": []}}}}])
def test_a_factory_that_makes_no_job_is_named(result: Any) -> None:
    with pytest.raises(ConfigurationError, match="job_factory must return a Job with a container"):
        made(lambda manifest, payload: result).job(PAYLOAD, FRAME)
