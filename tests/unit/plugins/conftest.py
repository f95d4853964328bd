"""What the tests of plugins share: a clean set of plugins, and distributions made on the spot."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.distributions import Site, only_site
from wove.plugins import register, unregister

Registering = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder that replaces every installed distribution for the length of a test."""
    with only_site(tmp_path / "site") as site:
        yield site


@pytest.fixture
def take(site: Site) -> Iterator[Registering]:
    """Register a plugin for the length of a test, where no other one is installed."""
    names: list[str] = []

    def register_for_now(plugin: object, name: str | None = None) -> str:
        names.append(register(plugin, name))
        return names[-1]

    yield register_for_now
    for name in reversed(names):
        unregister(name)
