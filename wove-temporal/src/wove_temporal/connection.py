"""The connection to the server: how it is made, what the server can do, and what its refusals mean."""

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from wove.errors import ConfigurationError, DeliveryError
from wove_temporal.settings import Settings

# How long a server that cannot be reached is asked again; Temporal's own default is 10 s.
_RETRYING = RetryConfig(max_elapsed_time_millis=3000)
_CONNECT_TIMEOUT = timedelta(seconds=3)
# How long a server that has taken a question may be silent, whatever the client's own retries are. To connect, the SDK
# itself waits for 30 s.
ANSWER_TIMEOUT = timedelta(seconds=10)
# What is given up comes to its end in the SDK's own threads. If the interpreter ends before that, it hangs:
# https://github.com/temporalio/sdk-python/issues/300
SETTLE_SECONDS = 0.1
_UNREACHABLE = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
_UNAUTHORIZED = (RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED)


class Connection:
    """A client and the server behind it.

    Attributes:
        client: connected.
        address: ``host:port``.

    Args:
        client: connected.
        owned: whether nobody else uses it.
    """

    def __init__(self, client: Client, *, owned: bool) -> None:
        self.client = client
        self.address = client.service_client.config.target_host
        self._owned = owned

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        """Give what the SDK raises its meaning.

        Raises:
            ConnectionError: the server cannot be reached.
            DeliveryError: it refuses.
        """
        try:
            yield
        except RPCError as error:
            raise _translated(error, self.address) from error

    def close(self) -> None:
        """Close the connection if it is our own. Nothing may be asked of the server any more."""
        if self._owned:
            # The SDK has no way to close a client, and its service client refers to itself: without this, the
            # connection would be open until the garbage collector comes along.
            vars(self.client.service_client).clear()

    @asynccontextmanager
    async def unless_gone(self) -> AsyncIterator[None]:
        """Do nothing where the server knows no such job, or it is over."""
        try:
            yield
        except RPCError as error:
            if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                raise

    async def has_standalone_activities(self) -> bool:
        """Tell whether the namespace has activities outside of workflows.

        Raises:
            ConfigurationError: there is no such namespace.
            ConnectionError: the server cannot be reached.
        """
        request = DescribeNamespaceRequest(namespace=self.client.namespace)
        try:
            answer = await self.client.workflow_service.describe_namespace(request, retry=True, timeout=ANSWER_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise ConfigurationError(
                    f"Temporal at {self.address} has no namespace {self.client.namespace!r}. Set 'namespace' to one "
                    f"that it has, or create it: temporal operator namespace create -n {self.client.namespace}"
                ) from error
            if error.status in (*_UNREACHABLE, RPCStatusCode.UNAUTHENTICATED):
                raise _translated(error, self.address) from error
            # An old server, or a key that may not look: workflows are everywhere.
            return False
        return bool(answer.namespace_info.capabilities.standalone_activities)

    async def has_pollers(self, task_queue: str, *, workflows: bool) -> bool:
        """Tell whether a worker has asked for tasks during the last minutes.

        Args:
            task_queue: its name.
            workflows: whether workflow tasks are asked about, instead of activities.

        Raises:
            ConnectionError: the server cannot be reached.
        """
        kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if workflows else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
        )
        async with self.reachable():
            answer = await self.client.workflow_service.describe_task_queue(request, retry=True, timeout=ANSWER_TIMEOUT)
        return bool(answer.pollers)


async def connect(settings: Settings, *, where: str) -> Connection:
    """Return the connection that a configuration describes.

    Args:
        settings: which client, or which server.
        where: how messages begin.

    Raises:
        ConfigurationError: an import path leads to no client, or an option is wrong.
        ConnectionError: the server cannot be reached, or does not let this process in; names its address.
    """
    if settings.client is not None:
        return Connection(await _given_client(settings.client, where=where), owned=False)
    options: dict[str, Any] = {"retry_config": _RETRYING, "connect_timeout": _CONNECT_TIMEOUT}
    options |= settings.connect_options
    try:
        async with asyncio.timeout(((options["connect_timeout"] or timedelta()) + ANSWER_TIMEOUT).total_seconds()):
            client = await Client.connect(settings.target_host, namespace=settings.namespace, **options)
    except RPCError as error:
        raise _translated(error, settings.target_host) from error
    except TimeoutError as error:
        await asyncio.sleep(SETTLE_SECONDS)
        raise ConnectionError(
            f"Temporal at {settings.target_host} takes connections, and does not answer. Is this its gRPC port?"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{where}: connect_options: Temporal's client does not take them: {error}") from error
    except RuntimeError as error:
        # The SDK's one class for everything that goes wrong below gRPC: https://github.com/temporalio/sdk-python
        raise ConnectionError(
            f"Temporal at {settings.target_host} cannot be reached. Is the server running, and does it want "
            "connect_options such as 'tls' or 'api_key'?"
        ) from error
    return Connection(client, owned=True)


async def _given_client(given: Any, *, where: str) -> Client:
    found = _imported(given, where=where) if isinstance(given, str) else given
    if callable(found) and not isinstance(found, Client):
        found = found()
    if inspect.isawaitable(found):
        found = await found
    if not isinstance(found, Client):
        raise ConfigurationError(f"{where}: client: a {type(found).__name__} is not a temporalio.client.Client.")
    return found


def _imported(path: str, *, where: str) -> Any:
    module, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{where}: client: {path!r} cannot be imported ({error}).") from error
    return found


def _translated(error: RPCError, address: str) -> Exception:
    if error.status in _UNREACHABLE:
        seen = f"{error.status.name}: {error.message}" if error.message else error.status.name
        return ConnectionError(
            f"Temporal at {address} cannot be reached ({seen}). See to it that the server runs and that this host "
            f"reaches it: temporal operator cluster health --address {address}. Until then new tasks fail; those with "
            "'retries' are tried again."
        )
    if error.status in _UNAUTHORIZED:
        return ConnectionError(
            f"Temporal at {address} does not let this process in ({error.status.name}): "
            "check connect_options 'api_key' and 'tls', and the namespace."
        )
    return DeliveryError(f"Temporal at {address} refuses ({error.status.name}): {error.message}")
