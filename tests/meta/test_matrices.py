"""Every fault and every bad input of `matrices.toml` has a test, and every test that is named there exists."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = {"fault": range(1, 45), "bad_input": range(1, 34)}
SHORT = {
    "i/": "tests/integration/",
    "b/": "tests/unit/backend/",
    "e/": "tests/unit/environment/",
    "s/": "tests/simulation/",
    "unit/": "tests/unit/",
    "kit/": "wove-core/src/wove/testing/",
}
MATRICES: dict[str, dict[str, list[str]]] = tomllib.loads(
    (Path(__file__).parent / "matrices.toml").read_text(encoding="utf-8")
)


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of the functions in a file; those of classes with the name of the class."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    methods = {f"{node.name}::{name}" for node in classes for name in functions_in(node.body)}
    return frozenset(methods | functions_in(body))


def functions_in(body: list[ast.stmt]) -> set[str]:
    """The names of the functions among statements."""
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def find(test: str) -> tuple[Path, str]:
    """The file and the name that an entry stands for."""
    short, _, name = test.partition("::")
    prefix = next(prefix for prefix in SHORT if short.startswith(prefix))
    return ROOT / (SHORT[prefix] + short.removeprefix(prefix)), name


@pytest.mark.parametrize("matrix", ROWS)
def test_no_row_is_missing(matrix: str) -> None:
    assert sorted(map(int, MATRICES[matrix])) == list(ROWS[matrix])


@pytest.mark.parametrize("matrix", ROWS)
def test_every_row_says_what_happens_and_names_a_test(matrix: str) -> None:
    poor = [row for row, (what, expected, *tests) in MATRICES[matrix].items() if not (what and expected and tests)]
    assert poor == []


@pytest.mark.parametrize("matrix", ROWS)
def test_every_test_exists(matrix: str) -> None:
    missing = []
    for row, (_, _, *tests) in MATRICES[matrix].items():
        for test in tests:
            path, name = find(test)
            if not path.is_file() or name not in names_in(path):
                missing.append(f"row {row}: {test}")
    assert missing == []


def test_a_test_that_is_gone_would_be_found() -> None:
    path, name = find("s/test_seeds.py::test_of_nothing")
    assert path.is_file()
    assert name not in names_in(path)
