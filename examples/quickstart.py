"""Index a directory of source or text files: what each file is about, and which files resemble each other.

    python examples/quickstart.py                      # the standard library of this Python
    python examples/quickstart.py ~/notes --suffix .md --suffix .txt
    python examples/quickstart.py --environment stdio  # the heavy step in a worker process

Reading and parsing stay in this process. Comparing every file with every other one is the heavy step; it runs in the
environment that ``--environment`` names, out of those that ``wove_config.py`` defines.
"""

import argparse
import math
import os
import re
import socket
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import wove
from wove import WoveResult, weave
from wove.errors import WoveError
from wove.runtime import runtime

WORD = re.compile(r"[A-Za-z][a-z]{2,}|[A-Z]{3,}")
SKIPPED_FOLDERS = {"__pycache__", "site-packages", "test", "tests", "node_modules", ".git", ".venv"}


class Document(NamedTuple):
    """One file that could be read."""

    name: str
    lines: int
    words: dict[str, int]


class Unreadable(NamedTuple):
    """One file that could not, and why."""

    name: str
    reason: str


class Index(NamedTuple):
    """What the heavy step finds out."""

    keywords: dict[str, list[str]]
    similar: list[tuple[float, str, str]]
    place: str


def list_files(folder: Path, suffixes: tuple[str, ...], most: int) -> list[Path]:
    found: list[Path] = []
    # A folder that cannot be read is listed, too: `parse` says so.
    walk = os.walk(folder, onerror=lambda error: found.append(Path(error.filename)))
    for parent, folders, names in walk:
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        found.extend(Path(parent, name) for name in sorted(names) if name.endswith(suffixes))
        if len(found) >= most:
            break
    return found[:most]


def parse(path: Path, folder: Path) -> Document | Unreadable:
    name = printable(str(path.relative_to(folder)))
    # Opening a named pipe would wait for somebody who writes into it.
    if path.exists() and not path.is_file():
        return Unreadable(name, "it cannot be read" if path.is_dir() else "it is not a regular file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # One bad file must not lose the others: it becomes a line of the report.
        return Unreadable(name, str(error))
    lines = text.count("\n") + bool(text and not text.endswith("\n"))
    return Document(name, lines, Counter(word.lower() for word in WORD.findall(text)))


def printable(name: str) -> str:
    """Return a file's name so that it fits into one cell of a table, and a terminal can show it."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def build_index(documents: list[Document]) -> Index:
    """Weigh the words of every file (tf-idf) and compare every file with every other one."""
    spread = Counter(word for document in documents for word in document.words)
    weighed = {
        document.name: {
            word: (1 + math.log(count)) * math.log(len(documents) / spread[word])
            for word, count in document.words.items()
            if spread[word] > 1
        }
        for document in documents
    }
    lengths = {name: math.sqrt(sum(weight**2 for weight in words.values())) for name, words in weighed.items()}
    # Of a handful of words nothing can be said.
    names = [name for name, words in weighed.items() if len(words) >= 20 and lengths[name]]
    similar = []
    for position, one in enumerate(names):
        words = weighed[one]
        for other in names[position + 1 :]:
            theirs = weighed[other]
            product = sum(words[word] * theirs[word] for word in words.keys() & theirs.keys())
            similar.append((product / (lengths[one] * lengths[other]), one, other))
    return Index(
        {name: sorted(words, key=lambda word: -words[word])[:4] for name, words in weighed.items()},
        sorted(similar, reverse=True)[:8],
        f"{socket.gethostname()}, process {os.getpid()}",
    )


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    lines = [headings, tuple("-" * width for width in widths), *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def run(folder: Path, suffixes: tuple[str, ...], limit: int, environment: str) -> WoveResult:
    with weave(folder=folder, error_mode="exit") as w:

        @w.do
        def found(folder):
            return list_files(folder, suffixes, limit + 1)

        @w.do
        def files(found):
            return found[:limit]

        @w.do("files", workers=8)
        def parsed(file, folder):
            return parse(file, folder)

        @w.do
        def documents(parsed):
            return [entry for entry in parsed if isinstance(entry, Document)]

        @w.do
        def unreadable(parsed):
            return [entry for entry in parsed if isinstance(entry, Unreadable)]

        @w.do(environment=environment)
        def index(documents):
            return build_index(documents)

        @w.do
        def report(documents, index):
            largest = sorted(documents, key=lambda document: -document.lines)[:10]
            files = [(entry.name, f"{entry.lines:,}", ", ".join(index.keywords[entry.name])) for entry in largest]
            pairs = [(f"{likeness:.0%}", one, other) for likeness, one, other in index.similar]
            return "\n\n".join(
                [
                    as_table(("largest files", "lines", "is about"), files),
                    as_table(("alike", "file", "and file"), pairs),
                ]
            )

    return w.result


def show(result: WoveResult, folder: Path, environment: str) -> None:
    lines = sum(document.lines for document in result.documents)
    print(f"{len(result.documents)} files, {lines:,} lines in {folder}\n\n{result.report}\n")
    here = f"{socket.gethostname()}, process {os.getpid()}"
    places = dict.fromkeys(result.timings, here) | {"index": f"{environment}: {result.index.place}"}
    spent = [(name, f"{seconds:.3f} s", places[name]) for name, seconds in result.timings.items()]
    print(as_table(("task", "took", "where"), spent))


def main() -> int:
    try:
        wove.config(config_file=Path(__file__).with_name("wove_config.py"))
        environments = sorted(set(runtime.environments) - {"default"})
    except WoveError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(description="Index a directory of source or text files.")
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("folder", nargs="?", type=Path, default=library, help="(default: %(default)s)")
    parser.add_argument("--suffix", action="append", help="files to read; may be repeated (default: .py .md .rst .txt)")
    parser.add_argument("--limit", type=int, default=300, help="read at most this many files (default: %(default)s)")
    parser.add_argument(
        "--environment",
        choices=environments,
        default="embedded",
        help="where the heavy step runs (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is not a directory. Name one that exists, or none for the standard library.")
    if arguments.limit < 1:
        parser.error("--limit must be at least 1.")
    suffixes = tuple(arguments.suffix or (".py", ".md", ".rst", ".txt"))
    try:
        result = run(arguments.folder, suffixes, arguments.limit, arguments.environment)
    except (OSError, WoveError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    if not result.files:
        wanted = " or ".join(suffixes)
        print(
            f"quickstart: no file in {arguments.folder} ends in {wanted}. Name others with --suffix.", file=sys.stderr
        )
        return 2
    show(result, arguments.folder, arguments.environment)
    if len(result.found) > arguments.limit:
        print(f"\nThese are the first {arguments.limit} files; there are more. Read more of them with --limit.")
    for entry in result.unreadable:
        print(f"quickstart: left out {entry.name}: {entry.reason}", file=sys.stderr)
    return 1 if result.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
