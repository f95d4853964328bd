"""Reads the Python blocks of Markdown pages and runs a page's blocks in order, as one program.

A page is run by `python -m tests.docs.pages PAGE` in a directory of its own. Two comments, on the line before a block,
change what happens to it:

    <!-- file: wove_config.py -->           the block is written to that file instead of being run
    <!-- not run: needs a Redis server -->  the block is only compiled; the reason is mandatory
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^\s`]*)")
_COMMENT = re.compile(r"^ *<!-- (?P<kind>file|not run): (?P<text>.+?) -->$")
_MISSPELLED = re.compile(r"^ *<!-- *(file|not[ -]?run)\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page.

    Attributes:
        line: the line of the page on which the code starts, from 1.
        code: the code without the indentation of its fence.
        file: the name of the file that the block is written to, or None.
        not_run: why the block is not run, or None.
    """

    line: int
    code: str
    file: str | None = None
    not_run: str | None = None

    def source(self) -> str:
        """The code, moved down to its line in the page: tracebacks then name the page's own lines."""
        return "\n" * (self.line - 1) + self.code


def _marks(comment: str, where: str) -> dict[str, str]:
    found = _COMMENT.match(comment)
    if found:
        return {found["kind"].replace(" ", "_"): found["text"]}
    if _MISSPELLED.match(comment):
        raise ValueError(f"{where}: write <!-- file: NAME --> or <!-- not run: REASON -->, not {comment.strip()}")
    return {}


def read_blocks(text: str, *, name: str = "page") -> Iterator[Block]:
    """Yield the Python blocks of a Markdown text.

    Raises:
        ValueError: a fence is not closed, or a comment before a block is not one of the two known ones.
    """
    lines = text.splitlines()
    position = 0
    while position < len(lines):
        opening = _FENCE.match(lines[position])
        position += 1
        if opening is None:
            continue
        start = position
        closing = opening["indent"] + opening["ticks"]
        while position < len(lines) and lines[position].rstrip() != closing:
            position += 1
        if position == len(lines):
            raise ValueError(f"{name}:{start}: this fence is never closed")
        if opening["language"] == "python":
            code = "\n".join(line.removeprefix(opening["indent"]) for line in lines[start:position])
            comment = lines[start - 2] if start >= 2 else ""
            yield Block(start + 1, code, **_marks(comment, f"{name}:{start - 1}"))
        position += 1


def run_page(page: Path) -> None:
    """Run a page's blocks as the module `__main__`, in the working directory."""
    # A new module: a name that a page forgot to import must not be found among this one's.
    program = ModuleType("__main__")
    sys.modules["__main__"] = program
    sys.path.insert(0, "")
    for block in read_blocks(page.read_text(encoding="utf-8"), name=page.name):
        code = compile(block.source(), str(page), "exec")
        if block.file:
            Path(block.file).write_text(block.code + "\n", encoding="utf-8")
        elif not block.not_run:
            exec(code, program.__dict__)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
