"""Where tasks run: the contract of executors, the executors of Wove, and the runtime that routes tasks to them.

Every name is resolved on first use, so that an environment loads only what it needs.
"""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove.backend.failures import normalize_exception as normalize_exception
    from wove.environment.backend import BackendAdapterEnvironmentExecutor as BackendAdapterEnvironmentExecutor
    from wove.environment.contract import EnvironmentExecutor as EnvironmentExecutor
    from wove.environment.grpc import GrpcEnvironmentExecutor as GrpcEnvironmentExecutor
    from wove.environment.http import HttpEnvironmentExecutor as HttpEnvironmentExecutor
    from wove.environment.local import LocalEnvironmentExecutor as LocalEnvironmentExecutor
    from wove.environment.registry import build_executor_from_name as build_executor_from_name
    from wove.environment.registry import coerce_executor as coerce_executor
    from wove.environment.routing import ExecutorRuntime as ExecutorRuntime
    from wove.environment.stdio import StdioEnvironmentExecutor as StdioEnvironmentExecutor
    from wove.environment.websocket import WebSocketEnvironmentExecutor as WebSocketEnvironmentExecutor
    from wove.errors import DeliveryOrphanedError as DeliveryOrphanedError
    from wove.errors import DeliveryTimeoutError as DeliveryTimeoutError
    from wove.errors import EnvironmentExecutionError as EnvironmentExecutionError
    from wove.errors import MissingDispatchFeatureError as MissingDispatchFeatureError

_HOMES = {
    "BackendAdapterEnvironmentExecutor": "wove.environment.backend",
    "DeliveryOrphanedError": "wove.errors",
    "DeliveryTimeoutError": "wove.errors",
    "EnvironmentExecutionError": "wove.errors",
    "EnvironmentExecutor": "wove.environment.contract",
    "ExecutorRuntime": "wove.environment.routing",
    "GrpcEnvironmentExecutor": "wove.environment.grpc",
    "HttpEnvironmentExecutor": "wove.environment.http",
    "LocalEnvironmentExecutor": "wove.environment.local",
    "MissingDispatchFeatureError": "wove.errors",
    "StdioEnvironmentExecutor": "wove.environment.stdio",
    "WebSocketEnvironmentExecutor": "wove.environment.websocket",
    "build_executor_from_name": "wove.environment.registry",
    "coerce_executor": "wove.environment.registry",
    "normalize_exception": "wove.backend.failures",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
