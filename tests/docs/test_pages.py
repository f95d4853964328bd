"""Every Python block of the documentation runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Block, read_blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "wove-*/README.md", "examples/*/README.md")
    for page in ROOT.glob(pattern)
    if "_build" not in page.parts
)


def _blocks(page: Path) -> list[Block]:
    return list(read_blocks(page.read_text(encoding="utf-8"), name=page.name))


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_of_a_page_compiles(page: Path) -> None:
    for block in _blocks(page):
        compile(block.source(), str(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)], ids=_name)
def test_the_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WOVE_")}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.pages", str(page)],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"


def test_the_command_of_the_readme_runs_the_tests() -> None:
    assert "nox" in (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- test command -->")[1].split("```")[1]


def test_blocks_keep_their_line_and_their_marks() -> None:
    text = (
        "# T\n```python\na = 1\n```\n<!-- file: x.py -->\n```python\nb\n```\n<!-- not run: why -->\n```python\nc\n```\n"
    )
    assert list(read_blocks(text)) == [
        Block(3, "a = 1"),
        Block(7, "b", file="x.py"),
        Block(11, "c", not_run="why"),
    ]


def test_other_languages_and_longer_fences_are_left_out() -> None:
    assert list(read_blocks("````markdown\n```python\na\n```\n````\n```bash\nls\n```\n")) == []


def test_a_block_inside_a_list_loses_its_indentation() -> None:
    assert [block.code for block in read_blocks("- item\n\n  ```python\n  if a:\n      b\n  ```\n")] == ["if a:\n    b"]


@pytest.mark.parametrize("comment", ["<!-- not run -->", "<!-- not-run: x -->", "<!-- file -->"])
def test_a_mark_that_is_not_understood_is_an_error(comment: str) -> None:
    with pytest.raises(ValueError, match="page:1"):
        list(read_blocks(f"{comment}\n```python\na\n```\n"))


def test_a_fence_that_stays_open_is_an_error() -> None:
    with pytest.raises(ValueError, match="page:1: this fence is never closed"):
        list(read_blocks("```python\na\n"))
