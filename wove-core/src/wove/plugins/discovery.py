"""What installed distributions offer to Wove through entry points."""

import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib_metadata import Distribution, EntryPoint

logger = logging.getLogger("wove.plugins")


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry point of one distribution.

    Attributes:
        name: what it calls itself.
        distribution: the name of the distribution, as pip knows it.
        entry_point: loads the object.
    """

    name: str
    distribution: str
    entry_point: "EntryPoint"

    def __str__(self) -> str:
        return f"{self.distribution} ({self.entry_point.value})"


def offers(group: str) -> tuple[Offer, ...]:
    """Return what the installed distributions offer in an entry-point group, such as ``wove.adapters``.

    Nothing is imported. The metadata are read once per process; `forget` has them read again.
    """
    return _scan().get(group, ())


def forget() -> None:
    """Read the metadata again at the next `offers`, those of distributions installed in the meantime included."""
    from importlib_metadata import MetadataPathFinder

    importlib.invalidate_caches()
    MetadataPathFinder.invalidate_caches()
    _scan.cache_clear()


@cache
def _scan() -> Mapping[str, tuple[Offer, ...]]:
    # Imported here because it costs more than the rest of `import wove`.
    from importlib_metadata import distributions

    found: dict[str, list[Offer]] = {}
    seen: set[str] = set()
    for distribution in distributions():
        points = list(_our_entry_points(distribution))
        if not points:
            continue
        name = _name_of(distribution)
        # A distribution that lies further back on the path is shadowed by one of the same name.
        if _normalized(name) in seen:
            continue
        seen.add(_normalized(name))
        for point in points:
            found.setdefault(point.group, []).append(Offer(point.name, name, point))
    return {group: tuple(listed) for group, listed in found.items()}


def _our_entry_points(distribution: "Distribution") -> Iterator["EntryPoint"]:
    try:
        points = list(distribution.entry_points)
    except Exception:
        logger.warning(
            "The entry points of %s cannot be read; it offers nothing.", _name_of(distribution), exc_info=True
        )
        return
    yield from (point for point in dict.fromkeys(points) if point.group.startswith("wove."))


def _name_of(distribution: "Distribution") -> str:
    try:
        name: str | None = distribution.name
    except Exception:
        name = None
    return name or f"a distribution without metadata in {distribution.locate_file('')}"


def _normalized(name: str) -> str:
    # The rule for comparing names: https://packaging.python.org/en/latest/specifications/name-normalization/
    return re.sub(r"[-_.]+", "-", name).lower()
