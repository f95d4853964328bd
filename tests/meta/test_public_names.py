"""The names that code in the wild imports: they exist, and are one object under every path."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import wove

PUBLIC = """
    __version__ weave Weave WoveResult EnvironmentExecutor BackendAdapterEnvironmentExecutor HttpEnvironmentExecutor
    GrpcEnvironmentExecutor WebSocketEnvironmentExecutor BackendAdapter NetworkExecutorSecurity
    MissingDispatchFeatureError DeliveryOrphanedError DeliveryTimeoutError config sync_to_async merge flatten fold batch
    undict redict denone
""".split()

BY_MODULE = {
    "wove.backend": """
        BackendCallbackServer build_backend_payload run_backend_payload run_backend_payload_async post_event
        serialize_frame deserialize_frame payload_to_b64 payload_from_b64
    """,
    "wove.environment": """
        EnvironmentExecutor LocalEnvironmentExecutor StdioEnvironmentExecutor HttpEnvironmentExecutor
        GrpcEnvironmentExecutor WebSocketEnvironmentExecutor BackendAdapterEnvironmentExecutor ExecutorRuntime
        build_executor_from_name coerce_executor normalize_exception MissingDispatchFeatureError
        EnvironmentExecutionError DeliveryTimeoutError DeliveryOrphanedError
    """,
    "wove.errors": """
        UnresolvedSignatureError MissingDispatchFeatureError EnvironmentExecutionError DeliveryTimeoutError
        DeliveryOrphanedError
    """,
    "wove.helpers": "flatten fold batch undict redict denone sync_to_async",
    "wove.integrations": """
        BackendAdapter get_backend_adapter_class get_backend_adapter_dependencies get_backend_adapter_install_hints
    """,
    "wove.integrations.base": "BackendAdapter",
    "wove.integrations.worker": "run arun",
    "wove.result": "WoveResult",
    "wove.runtime": "config runtime RuntimeConfig",
    "wove.security": "NetworkExecutorSecurity",
    "wove.weave": "Weave",
}
PATHS = [(module, name) for module, names in BY_MODULE.items() for name in names.split()]

SIGNATURES = {
    ("wove.backend", "BackendCallbackServer"): "host port public_url token",
    ("wove.backend", "build_backend_payload"): "frame callback_url adapter",
    ("wove.backend", "post_event"): "callback_url frame timeout",
    ("wove.environment", "BackendAdapterEnvironmentExecutor"): "name adapter_class required_modules",
    ("wove.environment", "EnvironmentExecutionError"): "payload",
    ("wove.environment", "ExecutorRuntime"): "environment_definitions run_config",
    ("wove.environment", "HttpEnvironmentExecutor"): "require_https",
    ("wove.environment", "build_executor_from_name"): "name",
    ("wove.environment", "coerce_executor"): "executor_value",
    ("wove.environment", "normalize_exception"): "exc source retryable",
    ("wove.integrations.base", "BackendAdapter"): "name config callback_url run_config",
}

WEAVE_AFTER_IMPORT = """
import wove
import wove.weave
import wove.result
assert wove.weave is not __import__("sys").modules["wove.weave"]
with wove.weave() as w:
    @w.do
    def one():
        return 1
assert w.result.one == 1
from wove.weave import Weave
assert Weave is wove.Weave
"""


@pytest.mark.parametrize("name", PUBLIC)
def test_the_package_exports(name: str) -> None:
    assert name in wove.__all__
    assert hasattr(wove, name)


@pytest.mark.parametrize("name", wove.__all__)
def test_everything_in_all_resolves_and_is_listed_by_dir(name: str) -> None:
    assert hasattr(wove, name)
    assert name in dir(wove)


@pytest.mark.parametrize(("module", "name"), PATHS)
def test_a_documented_path_leads_to_the_object(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("name", sorted({name for _, name in PATHS}))
def test_a_name_is_one_object_under_every_path(name: str) -> None:
    modules = [module for module, listed in PATHS if listed == name] + (["wove"] if name in PUBLIC else [])
    objects = [getattr(import_module(module), name) for module in modules]
    assert all(found is objects[0] for found in objects)


@pytest.mark.parametrize(("path", "parameters"), SIGNATURES.items(), ids=[name for _, name in SIGNATURES])
def test_a_documented_signature_is_kept(path: tuple[str, str], parameters: str) -> None:
    module, name = path
    assert list(inspect.signature(getattr(import_module(module), name)).parameters) == parameters.split()


def test_a_misspelled_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="weeve"):
        wove.weeve  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert wove.__version__ == version("wove-core")


def test_the_attribute_weave_stays_the_context_manager_after_the_module_is_imported() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WEAVE_AFTER_IMPORT], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
