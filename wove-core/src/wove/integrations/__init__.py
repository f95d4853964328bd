"""Backend adapters: the contract, and how an installed one is found by its name."""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove.integrations.base import BackendAdapter as BackendAdapter
    from wove.integrations.base import JobState as JobState
    from wove.integrations.registry import get_backend_adapter_class as get_backend_adapter_class
    from wove.integrations.registry import get_backend_adapter_dependencies as get_backend_adapter_dependencies
    from wove.integrations.registry import get_backend_adapter_install_hints as get_backend_adapter_install_hints

_HOMES = {
    "BackendAdapter": "wove.integrations.base",
    "JobState": "wove.integrations.base",
    "get_backend_adapter_class": "wove.integrations.registry",
    "get_backend_adapter_dependencies": "wove.integrations.registry",
    "get_backend_adapter_install_hints": "wove.integrations.registry",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
