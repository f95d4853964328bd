"""Executors by name and by value."""

from collections.abc import Mapping
from typing import Any

import pytest

from wove.environment import (
    BackendAdapterEnvironmentExecutor,
    EnvironmentExecutor,
    GrpcEnvironmentExecutor,
    HttpEnvironmentExecutor,
    LocalEnvironmentExecutor,
    StdioEnvironmentExecutor,
    WebSocketEnvironmentExecutor,
    build_executor_from_name,
    coerce_executor,
)
from wove.errors import ConfigurationError, UnknownExecutorError
from wove.integrations.base import BackendAdapter


class Silent(EnvironmentExecutor):
    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None: ...

    async def send(self, frame: dict[str, Any]) -> None: ...

    async def recv(self) -> dict[str, Any]:
        return {}

    async def stop(self) -> None: ...


class Adapter(BackendAdapter):
    pass


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("local", LocalEnvironmentExecutor),
        ("stdio", StdioEnvironmentExecutor),
        ("http", HttpEnvironmentExecutor),
        ("https", HttpEnvironmentExecutor),
        ("grpc", GrpcEnvironmentExecutor),
        ("websocket", WebSocketEnvironmentExecutor),
    ],
)
def test_each_built_in_name_leads_to_a_new_executor(name: str, kind: type[EnvironmentExecutor]) -> None:
    first, second = build_executor_from_name(name), build_executor_from_name(name)
    assert type(first) is kind
    assert first is not second


def test_a_misspelled_name_suggests_the_right_one() -> None:
    with pytest.raises(UnknownExecutorError, match=r"no executor named 'stdoi'\. Did you mean 'stdio'"):
        build_executor_from_name("stdoi")


def test_a_known_adapter_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wove.integrations.registry.offers", lambda group: [])
    with pytest.raises(UnknownExecutorError, match="pip install wove-celery"):
        build_executor_from_name("celery")


def test_an_instance_is_taken_as_it_is() -> None:
    instance = Silent()
    assert coerce_executor(instance) is instance


def test_an_object_with_the_four_methods_is_taken_as_it_is() -> None:
    class FourMethods:
        start, send, recv, stop = Silent.start, Silent.send, Silent.recv, Silent.stop

    instance = FourMethods()
    assert coerce_executor(instance) is instance  # type: ignore[comparison-overlap]


def test_a_name_is_a_string() -> None:
    with pytest.raises(ConfigurationError, match="a string like 'stdio', not 5"):
        build_executor_from_name(5)  # type: ignore[arg-type]


def test_nothing_means_local() -> None:
    assert type(coerce_executor(None)) is LocalEnvironmentExecutor


def test_a_name_is_built() -> None:
    assert type(coerce_executor("local")) is LocalEnvironmentExecutor


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Silent, r"Give an instance: Silent\(\)"),
        (Adapter, r'BackendAdapterEnvironmentExecutor\("name", adapter_class=Adapter\)'),
        (42, "Subclass wove.EnvironmentExecutor: int does not"),
    ],
)
def test_anything_else_is_refused_with_advice(value: object, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        coerce_executor(value)


def test_a_backend_executor_can_be_made_without_its_adapter_being_installed() -> None:
    assert isinstance(BackendAdapterEnvironmentExecutor("no-such-adapter"), EnvironmentExecutor)
