"""What is created in the cluster for a task: a Job, and the Secret that holds its payload. Plain dicts, no I/O."""

import base64
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.jobs import job_id_of, seconds_left
from wove_k8s.names import job_name
from wove_k8s.settings import CONTAINER, JobSettings, PodSettings

Manifest = dict[str, Any]

SESSION_LABEL = "wove.dev/session"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
RUN_ANNOTATION = "wove.dev/run"

_VOLUME = "wove-payload"
_FOLDER = "/var/run/wove"
_FILE = "payload"
_FILE_VARIABLE = "WOVE_BACKEND_PAYLOAD_FILE"


class Manifests:
    """Makes the manifests of one adapter's Jobs.

    Args:
        job, pod: the settings.
        namespace: where Jobs are created.
        session: marks everything of this adapter.
        factory: what the project does to each Job, given the manifest and the payload; returns the Job.
    """

    def __init__(
        self,
        job: JobSettings,
        pod: PodSettings,
        *,
        namespace: str,
        session: str,
        factory: Callable[[Manifest, Mapping[str, Any]], Manifest] | None = None,
    ) -> None:
        self._job = job
        self._pod = pod
        self._namespace = namespace
        self._labels = {**job.labels, MANAGED_LABEL: "wove", SESSION_LABEL: session}
        self._factory = factory
        self._template = merged(self._plain_template(), pod.pod_template)

    def job(self, payload: Mapping[str, Any], frame: Mapping[str, Any]) -> Manifest:
        """Return the Job of a task.

        Raises:
            ConfigurationError: ``job_factory`` returned something that is no Job.
        """
        run_id = str(frame["run_id"])
        manifest = self._plain_job(payload, frame)
        if self._factory is not None:
            manifest = self._factory(manifest, payload)
        task = str(payload.get("task_name") or payload.get("task_id"))
        name = job_name(self._job.name_prefix, task, job_id_of(frame))
        try:
            _seal(manifest, name, self._namespace, self._labels, run_id)
            _add_payload(manifest["spec"]["template"]["spec"], self.secret_name(run_id))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"job_factory must return a Job with a container, as a dict or a V1Job; this one lacks {error}."
            ) from None
        return manifest

    def secret(self, payload: Mapping[str, Any], job: Mapping[str, Any]) -> Manifest:
        """Return the Secret with a payload. The cluster removes it together with the Job.

        Args:
            payload: what the worker gets.
            job: the Job as the cluster has it.
        """
        metadata = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.secret_name(str(payload["run_id"])),
                "namespace": self._namespace,
                "labels": dict(self._labels),
                "ownerReferences": [owner],
            },
            "immutable": True,
            "data": {_FILE: base64.b64encode(json.dumps(payload).encode()).decode()},
        }

    def secret_name(self, run_id: str) -> str:
        """Return the name of a run's Secret. It is the run's own, also where its Job is that of an idempotency key."""
        return job_name(self._job.name_prefix, "payload", run_id)

    def _plain_job(self, payload: Mapping[str, Any], frame: Mapping[str, Any]) -> Manifest:
        spec: Manifest = {
            "backoffLimit": self._job.backoff_limit,
            "ttlSecondsAfterFinished": self._job.ttl_seconds,
            "template": copy.deepcopy(self._template),
        }
        limits = [limit for limit in (self._job.deadline_seconds, seconds_left(payload, frame)) if limit is not None]
        if limits:
            spec["activeDeadlineSeconds"] = min(limits)
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": spec}

    def _plain_template(self) -> Manifest:
        pod = self._pod
        container: Manifest = {
            "name": CONTAINER,
            "command": list(pod.command),
            # The end of the log becomes a part of the pod's status, so that nobody has to fetch it before it is gone.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        mounts = [{key: entry[key] for key in _MOUNT_KEYS if key in entry} for entry in pod.volumes]
        volumes = [{key: entry[key] for key in entry if key not in _MOUNT_KEYS[1:]} for entry in pod.volumes]
        _fill(container, image=pod.image, resources=pod.resources, env=list(pod.env), envFrom=list(pod.env_from))
        _fill(container, volumeMounts=mounts)
        spec: Manifest = {"restartPolicy": "Never", "containers": [container], "enableServiceLinks": False}
        _fill(spec, serviceAccountName=pod.service_account, nodeSelector=pod.node_selector)
        _fill(spec, tolerations=list(pod.tolerations), volumes=volumes)
        if pod.service_account is None:
            # The worker asks the cluster for nothing.
            spec["automountServiceAccountToken"] = False
        annotations, labels = dict(self._job.annotations), dict(self._job.labels)
        return {"metadata": {"annotations": annotations, "labels": labels}, "spec": spec}


_MOUNT_KEYS = ("name", "mountPath", "subPath", "readOnly", "mountPropagation", "subPathExpr")


def _fill(target: Manifest, **values: Any) -> None:
    target |= {key: value for key, value in values.items() if value}


def _seal(manifest: Manifest, name: str, namespace: str, labels: Mapping[str, str], run_id: str) -> None:
    """Give a Job and its pods what they are found by, whatever a factory has made of them."""
    template = manifest["spec"]["template"]
    template["spec"].setdefault("restartPolicy", "Never")
    for holder in (manifest, template):
        metadata = holder["metadata"] = dict(holder.get("metadata") or {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RUN_ANNOTATION: run_id}
    own = template["metadata"]["annotations"]
    manifest["metadata"]["annotations"] = {**own, **manifest["metadata"]["annotations"]}
    manifest["metadata"] |= {"name": name, "namespace": namespace}
    manifest["metadata"].pop("generateName", None)


def _add_payload(spec: Manifest, secret: str) -> None:
    """Mount the Secret into the worker's container, and tell the worker where it is.

    A file, because what stands in a pod's variables is shown to whoever may read pods, and because a variable ends at
    128 KiB.
    """
    containers = spec["containers"]
    container = next((each for each in containers if each.get("name") == CONTAINER), containers[0])
    volume = {"name": _VOLUME, "secret": {"secretName": secret}}
    spec["volumes"] = [*(spec.get("volumes") or ()), volume]
    mount = {"name": _VOLUME, "mountPath": _FOLDER, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
    variable = {"name": _FILE_VARIABLE, "value": f"{_FOLDER}/{_FILE}"}
    container["env"] = [*(container.get("env") or ()), variable]


# --- patching ---

_LIST_KEYS = {"volumeMounts": "mountPath"}


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Manifest:
    """Return a manifest with a patch applied: dicts are merged, lists whose items have names are merged by name (mounts
    by path), everything else is replaced, and None removes a key.

    https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/ does it in the same way.
    """
    result = dict(base)
    for key, value in patch.items():
        there = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(there if isinstance(there, Mapping) else {}, value)
        elif isinstance(value, list | tuple) and isinstance(there, list):
            result[key] = _merged_list(there, value, by=_LIST_KEYS.get(key, "name"))
        else:
            result[key] = copy.deepcopy(value)
    return result


def _merged_list(base: Sequence[Any], patch: Sequence[Any], *, by: str) -> list[Any]:
    if not all(isinstance(each, Mapping) and by in each for each in (*base, *patch)):
        return [copy.deepcopy(each) for each in patch]
    result = {each[by]: each for each in base}
    for each in patch:
        result[each[by]] = merged(result.get(each[by], {}), each)
    return list(result.values())
