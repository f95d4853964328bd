"""Imports point one way: each part of wove-core may import only parts of a lower rank."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "wove-core" / "src" / "wove"

# A part is a top-level module or package of `wove`; "" is `wove/__init__.py`. Equal ranks do not know each other.
RANKS = {
    "errors": 0,
    "lazy": 0,
    "options": 1,
    "helpers": 1,
    "plugins": 2,
    "settings": 2,
    "runtime": 3,
    "serialization": 3,
    "security": 3,
    "backend": 4,
    "integrations": 5,
    # The processes that execute tasks need nothing above the integrations.
    "backend_worker": 6,
    "stdio_worker": 6,
    "environment": 6,
    "flow": 7,
    "weave": 8,
    "result": 8,
    "": 9,
    "testing": 10,
    # A service runs its tasks in the worker processes of the stdio executor.
    "services": 10,
}


def _module_name(path: Path) -> str:
    parts = ["wove", *path.relative_to(SOURCES).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _part(module: str) -> str:
    """The part that a dotted name below `wove` belongs to."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def _is_typing_guard(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _nodes_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if _is_typing_guard(child):
            assert isinstance(child, ast.If)
            for node in child.orelse:
                yield node
                yield from _nodes_at_run_time(node)
            continue
        yield child
        yield from _nodes_at_run_time(child)


def _imported_names(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything below `wove` that a source imports at run time."""
    package = module if is_package else module.rpartition(".")[0]
    for node in _nodes_at_run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*base, origin] if origin else base)
            for alias in node.names:
                # `from wove import errors` imports the part `errors`; `from wove import weave` the package's own name.
                yield node.lineno, f"wove.{alias.name}" if origin == "wove" and alias.name in RANKS else origin


def backward_imports(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Describe every import of a source that points to a part of equal or higher rank."""
    own = _part(module)
    found = []
    for line, name in _imported_names(source, module, is_package=is_package):
        if name != "wove" and not name.startswith("wove."):
            continue
        target = _part(name)
        if target != own and RANKS.get(target, 99) >= RANKS[own]:
            found.append(f"{module}:{line} imports {name}")
    return found


def test_every_part_has_a_rank() -> None:
    parts = {_part(_module_name(path)) for path in SOURCES.rglob("*.py")}
    assert parts <= RANKS.keys(), f"give these a place in RANKS: {sorted(parts - RANKS.keys())}"


def test_no_import_points_backward() -> None:
    found = [
        arrow
        for path in sorted(SOURCES.rglob("*.py"))
        for arrow in backward_imports(
            path.read_text(encoding="utf-8"), _module_name(path), is_package=path.name == "__init__.py"
        )
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from wove.flow import graph",
        "import wove.flow.graph",
        "import wove",
        "from wove import weave",
        "def later():\n    from wove.environment import routing",
        "from ..environment import routing",
        "from ..unheard_of import thing",
    ],
)
def test_a_backward_import_is_found(source: str) -> None:
    assert backward_imports(source, "wove.backend.frames")


@pytest.mark.parametrize(
    "source",
    [
        "from wove.errors import WoveError",
        "from wove import errors",
        "from . import payload",
        "from .payload import build_backend_payload",
        "import httpx",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wove.flow import graph",
    ],
)
def test_a_forward_import_passes(source: str) -> None:
    assert backward_imports(source, "wove.backend.frames") == []
