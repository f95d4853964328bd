"""Distributions made on the spot: a folder on `sys.path` with modules and the metadata that pip would write."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import importlib_metadata
import pluggy

from wove.plugins import rescan

# Loaded before a `Site` narrows the path that they come from.
assert importlib_metadata
assert pluggy


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        *,
        modules: Mapping[str, str] | None = None,
        adapters: Mapping[str, str] | None = None,
        plugins: Mapping[str, str] | None = None,
    ) -> None:
        """Install a distribution, as pip does.

        Args:
            name: e.g. ``acme-queue``.
            modules: source texts by file name, e.g. ``acme.py`` or ``acme/__init__.py``.
            adapters: entry points of the group ``wove.adapters``, e.g. ``{"acme": "acme:AcmeAdapter"}``.
            plugins: entry points of the group ``wove.plugins``.
        """
        for path, source in (modules or {}).items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(source), encoding="utf-8")
        lines = []
        for group, points in (("wove.adapters", adapters), ("wove.plugins", plugins)):
            lines += [f"[{group}]", *(f"{point} = {value}" for point, value in (points or {}).items())]
        self.write_metadata(name, "\n".join(lines) + "\n")

    def write_metadata(self, name: str, entry_points: str) -> None:
        """Write a distribution's metadata with the given text as its ``entry_points.txt``."""
        info = self.folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        rescan()

    def imported(self) -> set[str]:
        """Return the names of the modules that have been imported from here."""
        return {
            name
            for name, module in list(sys.modules.items())
            if str(getattr(module, "__file__", None) or "").startswith(str(self.folder))
        }


@contextmanager
def only_site(folder: Path) -> Iterator[Site]:
    """Let `folder` take the place of every distribution that is installed."""
    folder.mkdir(exist_ok=True)
    site = Site(folder)
    path = sys.path[:]
    sys.path[:] = [str(folder), *(entry for entry in path if "-packages" not in entry)]
    rescan()
    try:
        yield site
    finally:
        sys.path[:] = path
        for name in site.imported():
            del sys.modules[name]
        rescan()
