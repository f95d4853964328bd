"""What the test kubelet says of a pod: the statuses that it patches."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from tests.beds.kubelet_api import MERGE_PATCH, Api, ApiError, now
from tests.beds.kubelet_containers import Pod
from tests.beds.kubelet_faults import fault_of

HOST = "127.0.0.1"
_RETRY_SECONDS = 0.2
_TAIL_BYTES = 2048


class Statuses:
    """Reports what becomes of pods.

    Args:
        api: the API server.
        pods: the path of the pods there.
    """

    def __init__(self, api: Api, pods: str) -> None:
        self._api = api
        self._pods = pods

    async def report_lost(self, pod: Pod) -> None:
        """Say what a kubelet says that comes back and does not find a container."""
        text = "The container could not be located when the pod was terminated"
        end = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": text, "finishedAt": now()}
        await self.report(pod, "Failed", {"terminated": end})

    async def report_end(self, pod: Pod, code: int, started: str, log: Path) -> None:
        """Say how a container has ended.

        Args:
            pod: the pod.
            code: the process's return code.
            started: when it was started.
            log: what it has written.
        """
        # A signal becomes an exit code as container runtimes do it.
        code = code if code >= 0 else 128 - code
        fault = fault_of(pod) if code == 137 else None
        reason = "OOMKilled" if fault == "oom" else "Error" if code else "Completed"
        end: dict[str, Any] = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}
        container = pod["spec"]["containers"][0]
        if code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            end["message"] = _end_of(log)
        about = {}
        if fault == "evict":
            about = {"reason": "Evicted", "message": "The node was low on resource: memory."}
        await self.report(pod, "Failed" if code else "Succeeded", {"terminated": end}, about=about)

    async def report(
        self,
        pod: Pod,
        phase: str,
        state: dict[str, Any] | None = None,
        *,
        scheduled: dict[str, str] | None = None,
        about: dict[str, str] | None = None,
    ) -> None:
        """Patch the pod's status; keep trying while the API server is away. A pod that is gone is no error."""
        condition = {"type": "PodScheduled", "lastTransitionTime": now(), **(scheduled or {"status": "True"})}
        status: dict[str, Any] = {"phase": phase, "conditions": [condition], **(about or {})}
        if state is not None:
            first = pod["spec"]["containers"][0]
            status |= {"startTime": now(), "hostIP": HOST, "podIP": HOST}
            about_container = {"name": first["name"], "image": first.get("image", ""), "imageID": "", "restartCount": 0}
            status["containerStatuses"] = [{**about_container, "ready": "running" in state, "state": state}]
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        while True:
            try:
                await self._api.call("PATCH", f"{self._pods}/{pod['metadata']['name']}/status", patch, kind=MERGE_PATCH)
                return
            except ApiError as error:
                if error.status in (404, 409, 422):
                    return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(_RETRY_SECONDS)


def _end_of(log: Path) -> str:
    return log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
