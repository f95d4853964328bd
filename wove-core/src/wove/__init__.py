"""Inline task orchestration with pluggable execution.

::

    from wove import weave

    with weave() as w:

        @w.do
        def numbers():
            return [1, 2, 3]

        @w.do("numbers")
        async def square(number):
            return number * number

    print(w.result.square)  # [1, 4, 9]

Every public name is resolved on first use, so that ``import wove`` loads next to nothing.
"""

import sys
from types import ModuleType

# Type checkers know this name; importing `typing` for it would cost more than everything else here.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wove.backend.loop import shutdown as shutdown
    from wove.environment.backend import BackendAdapterEnvironmentExecutor as BackendAdapterEnvironmentExecutor
    from wove.environment.contract import EnvironmentExecutor as EnvironmentExecutor
    from wove.environment.grpc import GrpcEnvironmentExecutor as GrpcEnvironmentExecutor
    from wove.environment.http import HttpEnvironmentExecutor as HttpEnvironmentExecutor
    from wove.environment.websocket import WebSocketEnvironmentExecutor as WebSocketEnvironmentExecutor
    from wove.errors import DeliveryOrphanedError as DeliveryOrphanedError
    from wove.errors import DeliveryTimeoutError as DeliveryTimeoutError
    from wove.errors import MissingDispatchFeatureError as MissingDispatchFeatureError
    from wove.flow.context import weave as weave
    from wove.flow.merging import merge as merge
    from wove.flow.result import WoveResult as WoveResult
    from wove.flow.template import Weave as Weave
    from wove.helpers import batch as batch
    from wove.helpers import denone as denone
    from wove.helpers import flatten as flatten
    from wove.helpers import fold as fold
    from wove.helpers import redict as redict
    from wove.helpers import sync_to_async as sync_to_async
    from wove.helpers import undict as undict
    from wove.integrations.base import BackendAdapter as BackendAdapter
    from wove.runtime import config as config
    from wove.security import NetworkExecutorSecurity as NetworkExecutorSecurity

_HOMES = {
    "weave": "wove.flow.context",
    "Weave": "wove.flow.template",
    "WoveResult": "wove.flow.result",
    "merge": "wove.flow.merging",
    "config": "wove.runtime",
    "shutdown": "wove.backend.loop",
    "EnvironmentExecutor": "wove.environment.contract",
    "BackendAdapterEnvironmentExecutor": "wove.environment.backend",
    "HttpEnvironmentExecutor": "wove.environment.http",
    "GrpcEnvironmentExecutor": "wove.environment.grpc",
    "WebSocketEnvironmentExecutor": "wove.environment.websocket",
    "BackendAdapter": "wove.integrations.base",
    "NetworkExecutorSecurity": "wove.security",
    "MissingDispatchFeatureError": "wove.errors",
    "DeliveryOrphanedError": "wove.errors",
    "DeliveryTimeoutError": "wove.errors",
    "sync_to_async": "wove.helpers",
    "flatten": "wove.helpers",
    "fold": "wove.helpers",
    "batch": "wove.helpers",
    "undict": "wove.helpers",
    "redict": "wove.helpers",
    "denone": "wove.helpers",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the submodule `wove.weave` would bind it in the place of the context manager.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[object, ...]:
        # A task that says `wove.merge` refers to this module, and pickles know how to name exact `ModuleType`s only.
        return __import__, (self.__name__,)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'wove' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
