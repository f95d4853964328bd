"""The node of the test kubelet, as the API server knows it."""

import asyncio
import contextlib
from datetime import UTC, datetime

import aiohttp

from tests.beds.kubelet_api import MERGE_PATCH, Api, ApiError, now

_HEARTBEAT_SECONDS = 1.0


class NodeObject:
    """Registers a node and gives signs of life for it.

    Args:
        api: the API server.
        name: the node's name.
    """

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._name = name

    async def register(self) -> None:
        """Create the node, ready."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._name}}
        with contextlib.suppress(ApiError):
            await self._api.call("POST", "/api/v1/nodes", node)
        await self._report_ready()

    async def give_signs_of_life(self) -> None:
        """Renew the node's lease every second, and the node where the controller has given it up."""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec = {"holderIdentity": self._name, "leaseDurationSeconds": 40, "renewTime": moment}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": spec,
            }
            try:
                await self._api.call("PATCH", f"{leases}/{self._name}", lease, kind=MERGE_PATCH)
                await self._report_ready()
            except ApiError as error:
                if error.status == 404:
                    with contextlib.suppress(ApiError, aiohttp.ClientError, OSError):
                        await self._api.call("POST", leases, lease)
            except (aiohttp.ClientError, OSError):
                pass  # The API server is away.
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def unregister(self) -> None:
        """Delete the node."""
        with contextlib.suppress(ApiError, aiohttp.ClientError, OSError):
            await self._api.call("DELETE", f"/api/v1/nodes/{self._name}")

    async def _report_ready(self) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
        status = {"conditions": [ready]}
        await self._api.call("PATCH", f"/api/v1/nodes/{self._name}/status", {"status": status}, kind=MERGE_PATCH)
