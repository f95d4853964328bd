"""`KubernetesJobsAdapter`: lets each task of a weave run as a Kubernetes Job."""

import asyncio
import importlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wove.backend.threads import in_daemon_thread
from wove.errors import ConfigurationError
from wove.integrations.base import BackendAdapter, JobState
from wove_k8s.manifests import SESSION_LABEL, Manifest, Manifests
from wove_k8s.settings import Settings, read_settings
from wove_k8s.states import JobBook

if TYPE_CHECKING:
    from wove_k8s.connection import Connection, Refused
    from wove_k8s.jobs import Jobs, Submitted
    from wove_k8s.watching import Watcher

# What is larger waits at the callback receiver instead: every node and every backup of the cluster's database would
# have its copy.
_LARGEST_PAYLOAD = 64 * 1024
# A Secret ends at 1 MiB: https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
_LARGEST_SECRET = 1_000_000
_CLOSE_SECONDS = 3.0

_RIGHTS = "create, get and delete on jobs.batch, create on secrets, list and watch on jobs.batch and pods"


class KubernetesJobsAdapter(BackendAdapter):
    """Submits each task as a Job whose image has Wove and the task's modules installed.

    ``executor_config``: ``image``, ``command``, ``namespace``, ``load_config_options`` and more. The README has
    a table.
    """

    required_modules = ("kubernetes.aio", "aiohttp")
    install_hint = "pip install wove-k8s"
    max_payload_bytes = _LARGEST_PAYLOAD
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _connection: "Connection | None" = None
    _jobs: "Jobs | None" = None
    _watcher: "Watcher | None" = None

    async def start(self) -> None:
        """Check the configuration, connect to the API server and see whether it lets us watch Jobs.

        Raises:
            ConfigurationError: a key is missing or wrong, or rights are missing; the message names it.
            ConnectionError: the API server cannot be reached; the message names it, without credentials.
        """
        where = f"executor_config of {self.name!r}"
        settings = read_settings(self.config, name=self.name)
        self._set_limit(settings, where)
        # A pod that Kubernetes starts in place of one that was deleted must not execute the task again; where that is
        # asked for, it may take over when the first one has not been heard for its lease.
        self.exclusive_runs = settings.job.backoff_limit == 0
        # Kubernetes' client takes a while to import.
        await in_daemon_thread(importlib.import_module, "wove_k8s.jobs")
        from wove_k8s.access import find_namespace, make_client
        from wove_k8s.connection import Connection, Refused
        from wove_k8s.jobs import Jobs
        from wove_k8s.watching import Watcher

        namespace = await in_daemon_thread(find_namespace, settings)
        factory = await in_daemon_thread(_factory, settings, where)
        session = secrets.token_hex(8)
        self._manifests = Manifests(settings.job, settings.pod, namespace=namespace, session=session, factory=factory)
        self._has_factory = factory is not None
        self._connection = Connection(lambda: make_client(settings, where))
        await self._connection.open()
        _check_way_back(self.callback_url, self._connection.address, settings, where)
        self._book = JobBook(
            unschedulable_seconds=settings.unschedulable_seconds, start_failure_seconds=settings.start_failure_seconds
        )
        selector = f"{SESSION_LABEL}={session}"
        watcher = Watcher(self._connection, namespace=namespace, selector=selector, book=self._book)
        try:
            await watcher.start()
        except Refused as refused:
            raise _not_allowed(refused, where, namespace, self._connection.address) from None
        self._watcher = watcher
        self._jobs = Jobs(self._connection, self._manifests, namespace=namespace, where=where)

    async def submit_many(
        self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> "Sequence[Submitted | Exception]":
        """Create Jobs; the name of each follows from the idempotency key, or else from the run's id.

        Returns:
            For each Job its handle, or what refused it: a DeliveryError from the cluster, a ConfigurationError for a
            field that it does not know, a ConnectionError where the API server did not answer.
        """
        results = await asyncio.gather(*(self._create(*each) for each in submissions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
        return results  # type: ignore[return-value]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Delete a Job with its pods. Kubernetes itself removes one that is over, after its time to live."""
        if not hasattr(submission, "uid") or self._book.is_over(run_id):
            return
        self._book.cancelled(run_id)
        await self._created.delete(submission)

    def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield what the API server says about Jobs and their pods."""
        if self._watcher is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._watcher.changes()

    async def close(self) -> None:
        """Delete what has to be deleted still, then close the connections."""
        if self._jobs is not None:
            await self._jobs.close(_CLOSE_SECONDS)
        if self._connection is not None:
            await self._connection.close()

    async def _create(self, payload: dict[str, Any], frame: dict[str, Any]) -> "Submitted":
        if self._has_factory:
            # The project's own code may take its time.
            manifest: Manifest = await in_daemon_thread(self._manifests.job, payload, frame)
        else:
            manifest = self._manifests.job(payload, frame)
        submitted = await self._created.create(manifest, payload)
        self._book.created(str(frame["run_id"]), submitted.name)
        return submitted

    @property
    def _created(self) -> "Jobs":
        if self._jobs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._jobs

    def _set_limit(self, settings: Settings, where: str) -> None:
        if settings.largest_payload is None:
            return
        if settings.largest_payload > _LARGEST_SECRET:
            raise ConfigurationError(
                f"{where}: max_payload_bytes must be at most {_LARGEST_SECRET:,}, what a Secret holds; it is "
                f"{settings.largest_payload:,}. What is larger stays with the weave, and the worker fetches it there."
            )
        self.max_payload_bytes = settings.largest_payload


def _factory(settings: Settings, where: str) -> Callable[[Manifest, Mapping[str, Any]], Manifest] | None:
    given = settings.job.factory
    if isinstance(given, str):
        module, _, attribute = given.partition(":")
        try:
            given = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{where}: job_factory: {settings.job.factory!r} cannot be imported ({error})."
            ) from None
    if given is None:
        return None
    if not callable(given):
        raise ConfigurationError(f"{where}: job_factory: {settings.job.factory!r} is not a function.")
    make = given

    def make_plain(manifest: Manifest, payload: Mapping[str, Any]) -> Manifest:
        from kubernetes.aio.client import ApiClient, Configuration

        plain: Manifest = ApiClient(Configuration()).sanitize_for_serialization(make(manifest, payload))
        return plain

    return make_plain


def _check_way_back(callback_url: str, address: str, settings: Settings, where: str) -> None:
    """Refuse a way back that no pod can take: one that leads to itself."""
    shares_host = (settings.pod.pod_template.get("spec") or {}).get("hostNetwork")
    if _is_loopback(callback_url) and not _is_loopback(address) and not shares_host:
        raise ConfigurationError(
            f"{where}: pods would post their results to themselves: callback_url is on a loopback address. "
            "Give an address of this machine, or of a Service, that pods reach: 'callback_host': '0.0.0.0', "
            "'callback_port': 9010, 'callback_url': 'http://192.0.2.7:9010'."
        )


def _is_loopback(url: str) -> bool:
    """Tell whether a URL leads to the machine of whoever follows it."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _not_allowed(refused: "Refused", where: str, namespace: str, address: str) -> Exception:
    if refused.status == 401:
        return ConfigurationError(
            f"{where}: the Kubernetes API server at {address} does not accept the credentials. Sign in again, or name "
            "another context: 'load_config_options': {'context': 'staging'}."
        )
    if refused.status == 403:
        return ConfigurationError(
            f"{where}: the credentials lack rights in the namespace {namespace!r}: {refused}. Wove needs: {_RIGHTS}; "
            "its README has a Role for that."
        )
    return ConnectionError(f"The Kubernetes API server at {address} refuses to list Jobs ({refused.status}): {refused}")
