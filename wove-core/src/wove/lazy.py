"""Names of a package that are resolved on first use, so that importing the package loads only what is needed."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: dict[str, object], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return what a package has to assign to ``__getattr__`` and ``__dir__``.

    Args:
        package: its ``globals()``.
        homes: for each of its names, the module that defines it.
    """

    def resolve(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        package[name] = value
        return value

    return resolve, lambda: sorted(homes)
