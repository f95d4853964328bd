"""A misspelled field of a Job is an error that names it. The API server of these tests is too old to find one, so this
one speaks the words of a newer server.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from kubernetes import client

from wove.errors import ConfigurationError, DeliveryError
from wove_k8s.connection import Connection, Refused
from wove_k8s.jobs import Jobs
from wove_k8s.manifests import Manifests
from wove_k8s.settings import read_settings

PAYLOAD = {"run_id": "report-1", "task_name": "report", "callable_pickle": "c2VjcmV0"}
WORDS = (
    'Job in version "v1" cannot be handled as a Job: strict decoding error: '
    'unknown field "spec.template.spec.containers[0].imagePullPolcy", unknown field "spec.template.spec.tolerationz"'
)


class Server:
    """An API server that refuses two fields where it is asked to be strict, and leaves them out otherwise."""

    def __init__(self, status: int = 400, words: str = WORDS) -> None:
        self.created: list[str] = []
        self._refusal = Refused(status, "BadRequest", words)

    async def call(self, method: str, path: str, *, query: Any = None, body: Any = None) -> dict[str, Any]:
        strict = (query or {}).get("fieldValidation") == "Strict"
        if strict and ("Polcy" in json.dumps(body) or "tolerationz" in json.dumps(body)):
            raise self._refusal
        self.created.append(body["kind"])
        return {"metadata": {**body["metadata"], "uid": "u-1"}}


async def create(server: Server, **pod: Any) -> None:
    settings = read_settings({"image": "example.org/reports:1", "pod_template": {"spec": pod}})
    manifests = Manifests(settings.job, settings.pod, namespace="reports", session="5e55")
    connection = cast("Connection", server)
    jobs = Jobs(connection, manifests, namespace="reports", where="executor_config of 'reports'")
    await jobs.create(manifests.job(PAYLOAD, {"run_id": "report-1", "delivery": {}}), PAYLOAD)


async def test_a_misspelled_field_is_named_and_nothing_is_created() -> None:
    server = Server()
    with pytest.raises(ConfigurationError) as raised:
        await create(
            server, tolerationz=[{"operator": "Exists"}], containers=[{"name": "wove", "imagePullPolcy": "Always"}]
        )
    assert str(raised.value).startswith(
        "executor_config of 'reports': Kubernetes knows no such field in a Job: "
        "spec.template.spec.containers[0].imagePullPolcy, spec.template.spec.tolerationz. Correct its name"
    )
    assert "pod_template" in str(raised.value)
    assert server.created == []


async def test_fields_that_the_server_knows_are_no_error() -> None:
    server = Server()
    await create(server, tolerations=[{"operator": "Exists"}])
    assert server.created == ["Job", "Secret"]


async def test_another_refusal_keeps_the_words_of_the_server() -> None:
    with pytest.raises(DeliveryError, match="quantities must match"):
        await create(Server(words="quantities must match"), tolerationz=[])


def unknown_fields(value: Any, kind: str, path: str = "") -> Iterator[str]:
    """Yield the fields of a manifest that Kubernetes' own client does not know."""
    inner = re.fullmatch(r"(?:List|Dict)\[(?:str, )?(\w+)\]", kind)
    if inner is not None:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in entries:
            yield from unknown_fields(each, inner[1], f"{path}[{key}]")
    model = getattr(client, kind, None)
    if model is None:
        return
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for key, each in value.items():
        if key in names:
            yield from unknown_fields(each, model.openapi_types[names[key]], f"{path}.{key}")
        else:
            yield f"{path}.{key}"


def job(**config: Any) -> dict[str, Any]:
    settings = read_settings({"image": "example.org/reports:1", **config})
    manifests = Manifests(settings.job, settings.pod, namespace="reports", session="5e55")
    return manifests.job({**PAYLOAD, "deadline": None}, {"run_id": "report-1", "delivery": {}})


def test_wove_itself_writes_no_field_that_kubernetes_does_not_know() -> None:
    config = {
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "service_account": "reports",
        "env": {"REGION": "eu"},
        "env_from": [{"secretRef": {"name": "database"}}],
        "node_selector": {"pool": "batch"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "volumes": [{"name": "scratch", "emptyDir": {}, "mountPath": "/scratch", "subPath": "a", "readOnly": True}],
        "labels": {"team": "reports"},
        "annotations": {"example.org/owner": "reports"},
        "active_deadline_seconds": 60,
    }
    assert list(unknown_fields(job(), "V1Job")) == []
    assert list(unknown_fields(job(**config), "V1Job")) == []
    # As a proof that it would be seen.
    misspelled = job(pod_template={"metadata": {"labelz": {}}, "spec": {"containers": [{"name": "wove", "imag": "a"}]}})
    found = [".spec.template.metadata.labelz", ".spec.template.spec.containers[0].imag"]
    assert sorted(unknown_fields(misspelled, "V1Job")) == found
