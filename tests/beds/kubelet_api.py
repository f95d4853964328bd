"""The API server as the test kubelet sees it."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

MERGE_PATCH = "application/strategic-merge-patch+json"


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ApiError(Exception):
    """The API server refuses."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class Api:
    """The API server, in plain JSON.

    Args:
        kubeconfig: with a token, and the authority's certificate inline.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._session = aiohttp.ClientSession(
            base_url=cluster["server"],
            headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority), limit=100),
            read_bufsize=2**21,
        )

    async def call(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """Return the answer.

        Raises:
            ApiError: the status is no success.
        """
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, headers={"Content-Type": kind}) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise ApiError(answer.status, text)
            return json.loads(text)

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield events until the server ends it."""
        query = f"?watch=1&resourceVersion={version}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path + query, timeout=timeout) as answer:
            while line := await answer.content.readline():
                event = json.loads(line)
                yield event["type"], event["object"]

    async def close(self) -> None:
        await self._session.close()
