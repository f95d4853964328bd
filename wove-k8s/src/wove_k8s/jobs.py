"""Creates and deletes Jobs, each once, also where answers get lost."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from wove.errors import ConfigurationError, DeliveryError
from wove_k8s.connection import Connection, Refused, Unreachable
from wove_k8s.manifests import RUN_ANNOTATION, Manifest, Manifests
from wove_k8s.watching import BUSY

T = TypeVar("T")

# More requests at once need more connections, and end no sooner.
_AT_ONCE = 16
# For how long a request is repeated: while nobody answers, and while the server asks for patience.
_UNREACHABLE_SECONDS = 4.0
_BUSY_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_SWEEP_PAUSE, _LONGEST_SWEEP_PAUSE = 0.5, 10.0
_BAD_REQUEST, _NOT_FOUND, _CONFLICT = 400, 404, 409
# A field that it does not know is an error then, and not left out: since Kubernetes 1.25.
# https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
_STRICT = {"fieldValidation": "Strict"}
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')

logger = logging.getLogger("wove")


class Submitted:
    """The handle of a Job.

    Attributes:
        name: the Job's name.
        uid: its unique id.
    """

    __slots__ = ("name", "uid")

    def __init__(self, name: str, uid: str) -> None:
        self.name = name
        self.uid = uid

    def __repr__(self) -> str:
        return f"<Kubernetes Job {self.name}>"


class Jobs:
    """The Jobs of one adapter. Its loop only.

    Args:
        connection: to the API server.
        manifests: what Jobs are like.
        namespace: where they are.
        where: how messages about the configuration begin.
    """

    def __init__(self, connection: Connection, manifests: Manifests, *, namespace: str, where: str) -> None:
        self._connection = connection
        self._manifests = manifests
        self._where = where
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._limit = asyncio.Semaphore(_AT_ONCE)
        # Jobs that must not be there, and may be: no answer came when they were created or deleted.
        self._doubtful: dict[str, str | None] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def create(self, manifest: Manifest, payload: Mapping[str, Any]) -> Submitted:
        """Create a Job and the Secret that it waits for.

        Raises:
            ConfigurationError: the Job has a field that Kubernetes does not know.
            DeliveryError: the cluster refuses it; or a Job with the same idempotency key is there for another run.
            ConnectionError: there was no answer for seconds. Should the Job exist, it is removed later.
        """
        name, run_id = manifest["metadata"]["name"], manifest["metadata"]["annotations"][RUN_ANNOTATION]
        async with self._limit:
            try:
                job = await self._create_job(manifest, name, run_id)
                submitted = Submitted(name, job["metadata"]["uid"])
                try:
                    await self._create_secret(self._manifests.secret(payload, job), submitted.uid)
                except BaseException:
                    # Its pod would wait for the Secret for ever.
                    self._doubt(name, submitted.uid)
                    raise
            except Unreachable:
                self._doubt(name, None)
                raise
            except Refused as refused:
                raise self._refusal(refused, name) from None
        return submitted

    async def delete(self, submitted: Submitted) -> None:
        """Delete a Job, and with it its pods, whose processes get SIGTERM. One that cannot be reached now is deleted
        later.
        """
        async with self._limit:
            try:
                await self._delete(submitted.name, submitted.uid)
            except (Unreachable, Refused) as error:
                logger.debug("Deleting Job %s failed, and is tried again: %s", submitted.name, error)
                self._doubt(submitted.name, submitted.uid)

    async def close(self, seconds: float) -> None:
        """Delete what is left to be deleted, for so many seconds at most."""
        if self._sweeping is None:
            return
        if not self._sweeping.done():
            await asyncio.wait([self._sweeping], timeout=seconds)
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        for name in self._doubtful:
            logger.warning("Job %s may still be in the cluster: the API server could not be reached.", name)

    # --- creating ---

    async def _create_job(self, manifest: Manifest, name: str, run_id: str) -> dict[str, Any]:
        async def create() -> dict[str, Any]:
            return await self._connection.call("POST", self._jobs, query=_STRICT, body=manifest)

        async def look() -> dict[str, Any] | None:
            found = await self._find(name)
            # One of another run is a conflict, which creating it again will say.
            return found if found is not None and _run_of(found) == run_id else None

        while True:
            try:
                return await self._insist(create, look)
            except Refused as refused:
                if refused.status != _CONFLICT or refused.reason != "AlreadyExists":
                    raise
            there = await self._insist(lambda: self._find(name))
            if there is None:
                continue
            if _run_of(there) == run_id:
                return there
            if not _is_over(there):
                raise DeliveryError(
                    f"Job {name} is there already, for the run {_run_of(there)!r} of another program with the same "
                    "delivery_idempotency_key. Wait until it is over, or use another key."
                )
            await self._insist(lambda uid=there["metadata"]["uid"]: self._delete(name, uid))  # type: ignore[misc]

    async def _create_secret(self, secret: Manifest, uid: str) -> None:
        try:
            await self._insist(lambda: self._connection.call("POST", self._secrets, body=secret))
        except Refused as refused:
            # Whoever has got so far before us has stored the same.
            if refused.reason != "AlreadyExists":
                raise

    async def _find(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._connection.call("GET", f"{self._jobs}/{name}")
        except Refused as refused:
            if refused.status != _NOT_FOUND:
                raise
            return None

    async def _insist(
        self, attempt: Callable[[], Awaitable[T]], look: Callable[[], Awaitable[T | None]] | None = None
    ) -> T:
        """Return what an attempt returns, repeated while the server is away or busy.

        Args:
            attempt: a request.
            look: tells whether the request before, whose answer was lost, has done it already.
        """
        loop = asyncio.get_running_loop()
        began, pause, in_doubt = loop.time(), _FIRST_PAUSE, False
        while True:
            try:
                found = await look() if in_doubt and look is not None else None
                return found if found is not None else await attempt()
            except Unreachable as error:
                in_doubt = in_doubt or error.sent
                if loop.time() - began + pause > _UNREACHABLE_SECONDS:
                    raise
            except Refused as refused:
                if refused.status not in BUSY or loop.time() - began > _BUSY_SECONDS:
                    raise
                in_doubt = in_doubt or refused.status >= 500
                pause = max(pause, min(refused.retry_after or 0.0, _BUSY_SECONDS))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _refusal(self, refused: Refused, name: str) -> ConfigurationError | DeliveryError:
        unknown = _UNKNOWN_FIELD.findall(str(refused)) if refused.status == _BAD_REQUEST else []
        if unknown:
            return ConfigurationError(
                f"{self._where}: Kubernetes knows no such field in a Job: {', '.join(unknown)}. Correct its name where "
                "it stands: in pod_template, in another key that describes the pod, or in what job_factory returns."
            )
        return DeliveryError(f"Kubernetes refuses Job {name} ({refused.status} {refused.reason}): {refused}")

    # --- deleting ---

    async def _delete(self, name: str, uid: str | None) -> None:
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._connection.call("DELETE", f"{self._jobs}/{name}", body=options)
        except Refused as refused:
            # Not there any more, or there is another one of that name.
            if refused.status not in (_NOT_FOUND, _CONFLICT):
                raise

    def _doubt(self, name: str, uid: str | None) -> None:
        self._doubtful[name] = uid
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        """Delete what must not be there, as soon as the server answers."""
        pause = _SWEEP_PAUSE
        while self._doubtful:
            name, uid = next(iter(self._doubtful.items()))
            try:
                await self._delete(name, uid)
                self._doubtful.pop(name, None)
                continue
            except Unreachable:
                pass
            except Refused as refused:
                if refused.status not in BUSY:
                    logger.warning("Job %s cannot be deleted: %s", name, refused)
                    self._doubtful.pop(name, None)
                    continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_SWEEP_PAUSE)


def _run_of(job: Mapping[str, Any]) -> str:
    return str((job["metadata"].get("annotations") or {}).get(RUN_ANNOTATION, ""))


def _is_over(job: Mapping[str, Any]) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each.get("status") == "True" for each in conditions)
