"""The ``executor_config`` of the environment, checked. Nothing here imports the Kubernetes client."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    check_flag,
    check_mapping,
    check_seconds,
    check_settings,
    check_text,
    is_number,
)
from wove_k8s.names import LABEL, LONGEST_PREFIX

CONTAINER = "wove"
DEFAULT_COMMAND = ("python", "-m", "wove.backend_worker")


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the containers of Jobs are like; each is what Kubernetes calls so."""

    image: str | None = None
    command: Sequence[str] = DEFAULT_COMMAND
    resources: Mapping[str, Any] | None = None
    service_account: str | None = None
    env: Sequence[Mapping[str, Any]] = ()
    env_from: Sequence[Mapping[str, Any]] = ()
    node_selector: Mapping[str, str] | None = None
    tolerations: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    pod_template: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What Jobs are like.

    Attributes:
        name_prefix: how their names begin.
        backoff_limit: how many more pods Kubernetes starts after one that failed.
        ttl_seconds: for how long a Job that is over stays.
        deadline_seconds: for how long a Job may be there until it has to be over; None: only the task's own limit.
        labels, annotations: of Jobs and their pods.
        factory: changes, or replaces, what Wove would create; or its import path.
    """

    name_prefix: str = "wove"
    backoff_limit: int = 0
    ttl_seconds: int = 60
    deadline_seconds: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    factory: Callable[..., Any] | str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks become Jobs.

    Attributes:
        namespace: where; None: that of the kubeconfig's context, or of this pod.
        batch_api: a client of the project whose configuration is used, or its import path.
        load_config: whether a configuration is loaded; otherwise the client's default configuration is used.
        in_cluster: whether it is that of a pod; None: in a pod, it is.
        load_config_options: arguments of ``load_kube_config`` or ``load_incluster_config``.
        largest_payload: bytes of JSON that travel in the Secret; None: the adapter's own limit.
        unschedulable_seconds: for how long a pod may wait for a node that has room.
        start_failure_seconds: for how long a container may fail to start, for lack of its image for example.
    """

    job: JobSettings
    pod: PodSettings
    namespace: str | None = None
    batch_api: Any = None
    load_config: bool = True
    in_cluster: bool | None = None
    load_config_options: Mapping[str, Any] = field(default_factory=dict)
    largest_payload: int | None = None
    unschedulable_seconds: float = 300.0
    start_failure_seconds: float = 60.0


# --- checks ---


def _label(value: object) -> str:
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise ValueError("lower-case letters, digits and hyphens, 63 at most")
    return value


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not LABEL.fullmatch(value) or len(value) > LONGEST_PREFIX:
        raise ValueError(f"lower-case letters, digits and hyphens, {LONGEST_PREFIX} at most")
    return value


def _words(value: object) -> list[str]:
    words = list(value) if isinstance(value, list | tuple) else []
    if not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError("a list of words")
    return words


def _texts(value: object) -> dict[str, str]:
    texts = check_mapping(value)
    if not all(isinstance(each, str) for each in texts.values()):
        raise ValueError("a dict of texts")
    return texts


def _resources(value: object) -> dict[str, Any]:
    resources = check_mapping(value)
    # Kubernetes itself drops what it does not know, and the container would run without its limits.
    if not resources.keys() <= {"requests", "limits", "claims"}:
        raise ValueError("a dict with 'requests', 'limits' and 'claims', or some of them")
    return resources


def _env(value: object) -> list[dict[str, Any]]:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and isinstance(text, str) for key, text in value.items()):
            raise ValueError("a dict of texts, or a list of Kubernetes' EnvVar")
        return [{"name": key, "value": text} for key, text in value.items()]
    entries = _entries(value)
    if not all(isinstance(entry.get("name"), str) for entry in entries):
        raise ValueError("a dict of texts, or a list of Kubernetes' EnvVar")
    return entries


def _entries(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        raise ValueError("a list of dicts")
    return [dict(entry) for entry in value]


def _volumes(value: object) -> list[dict[str, Any]]:
    entries = _entries(value)
    if not all(isinstance(entry.get("name"), str) and isinstance(entry.get("mountPath"), str) for entry in entries):
        raise ValueError("a list of Kubernetes' Volume, each with its mountPath")
    return entries


def _patch(value: object) -> dict[str, Any]:
    patch = check_mapping(value)
    if not patch.keys() <= {"metadata", "spec"}:
        raise ValueError("a dict with 'metadata' and 'spec' of a pod")
    return patch


def _factory(value: object) -> object:
    if not (callable(value) or (isinstance(value, str) and ":" in value)):
        raise ValueError("a function that takes a manifest and a payload, or its import path")
    return value


def _client(value: object) -> object:
    if not (hasattr(value, "api_client") or (isinstance(value, str) and ":" in value)):
        raise ValueError("a BatchV1Api, or its import path")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number of at least 0")
    return value


def _whole_seconds(value: object) -> int:
    return math.ceil(check_seconds(value))


def _ttl(value: object) -> int:
    if not is_number(value) or value < 0:
        raise ValueError("a number of seconds")
    return math.ceil(value)


_POD: Mapping[str, Setting] = {
    "image": Setting(check_text, "'registry.example.org/reports:1.4'"),
    "command": Setting(_words, "['python', '-m', 'wove.backend_worker']"),
    "resources": Setting(_resources, "{'requests': {'cpu': '1'}, 'limits': {'memory': '2Gi'}}"),
    "service_account": Setting(check_text, "'reports'"),
    "env": Setting(_env, "{'REGION': 'eu'}"),
    "env_from": Setting(_entries, "[{'secretRef': {'name': 'database'}}]"),
    "node_selector": Setting(_texts, "{'pool': 'batch'}"),
    "tolerations": Setting(_entries, "[{'key': 'batch', 'operator': 'Exists'}]"),
    "volumes": Setting(_volumes, "[{'name': 'scratch', 'emptyDir': {}, 'mountPath': '/scratch'}]"),
    "pod_template": Setting(_patch, "{'spec': {'priorityClassName': 'low'}}"),
}
# The key of each, as Settings and its parts call it.
_JOB: Mapping[str, tuple[str, Setting]] = {
    "job_name_prefix": ("name_prefix", Setting(_prefix, "'reports'")),
    "backoff_limit": ("backoff_limit", Setting(_count, "0")),
    "ttl_seconds_after_finished": ("ttl_seconds", Setting(_ttl, "600")),
    "active_deadline_seconds": ("deadline_seconds", Setting(_whole_seconds, "3600")),
    "labels": ("labels", Setting(_texts, "{'team': 'reports'}")),
    "annotations": ("annotations", Setting(_texts, "{'example.org/owner': 'reports'}")),
    "job_factory": ("factory", Setting(_factory, "'myproject.jobs:make_job'")),
}
_OTHERS: Mapping[str, Setting] = {
    "namespace": Setting(_label, "'reports'"),
    "batch_api": Setting(_client, "'myproject.cluster:batch_api'"),
    "load_config": Setting(check_flag, "False"),
    "in_cluster": Setting(check_flag, "True"),
    "load_config_options": Setting(check_mapping, "{'context': 'staging'}"),
    "unschedulable_seconds": Setting(check_seconds, "600"),
    "start_failure_seconds": Setting(check_seconds, "60"),
}
_ALL: Mapping[str, Setting] = {**_OTHERS, **_POD, **{key: setting for key, (_, setting) in _JOB.items()}}


def read_settings(config: Mapping[str, Any], *, name: str = "kubernetes_jobs") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    given = check_settings(config, _ALL, where=where)
    _check_together(where, given)
    return Settings(
        job=JobSettings(**{name: given[key] for key, (name, _) in _JOB.items() if key in given}),
        pod=PodSettings(**{key: given[key] for key in _POD if key in given}),
        largest_payload=config.get("max_payload_bytes"),
        **{key: given[key] for key in _OTHERS if key in given},
    )


def _check_together(where: str, given: Mapping[str, Any]) -> None:
    names_image = "image" in given or "job_factory" in given or _image_in(given.get("pod_template", {}))
    if not names_image:
        raise ConfigurationError(
            f"{where} needs 'image', for example {_POD['image'].example}: one with Python, wove[dispatch] and your "
            "tasks."
        )
    for key in ("load_config", "in_cluster", "load_config_options"):
        if key in given and "batch_api" in given:
            raise ConfigurationError(f"{where}: {key} is for environments without 'batch_api', which brings its own.")
    if given.get("load_config") is False and ("in_cluster" in given or "load_config_options" in given):
        raise ConfigurationError(f"{where}: load_config is off, so in_cluster and load_config_options say nothing.")


def _image_in(patch: Mapping[str, Any]) -> bool:
    containers = (patch.get("spec") or {}).get("containers") or ()
    return any(container.get("image") for container in containers if container.get("name") == CONTAINER)
