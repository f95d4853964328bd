"""What the repository holds: packaging that agrees with the folders, sizes a reader can take in, nothing private."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("wove-*/src/**/*.py"))
ADAPTERS = sorted(path.parent.name for path in ROOT.glob("wove-*/pyproject.toml") if path.parent.name != "wove-core")
LONGEST_FILE = 350

# Spelled so that a pattern does not contain what it finds.
FORBIDDEN = {
    "a path of one machine": r"/[r]oot/|/[h]ome/[a-z]+/|\.[p]yenv/versions/\d|/[w]ork/(main|shared)|/[t]mp/plan",
    "the address of a package registry": r"index-url *=|https?://[^ \"')]+/simple\b|https?://[^ \"')]+\.whl\b",
    "how work is organised": r"(?i)\bissue #?\d\b|\bcoordinator\b|\bCONTRACT\.md|\bBRIEF\.md|\bthe brief\b",
}


def _read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _committed_texts() -> list[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = []
    for name in listed.split("\0"):
        path = ROOT / name
        # This file spells out what it forbids.
        if name and path.is_file() and path != Path(__file__) and path.suffix not in {".png", ".ico"}:
            texts.append((name, path.read_text(encoding="utf-8")))
    return texts


@pytest.mark.parametrize("matter", FORBIDDEN)
def test_no_committed_file_mentions(matter: str) -> None:
    pattern = re.compile(FORBIDDEN[matter])
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in _committed_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_lock_file_is_committed() -> None:
    assert [name for name, _ in _committed_texts() if name.endswith("uv.lock")] == []


def test_no_source_file_is_longer_than_a_reader_can_take_in() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_every_adapter_folder_has_its_extra_and_its_source() -> None:
    root = _read_toml(ROOT / "pyproject.toml")
    extras = {name for values in root["project"]["optional-dependencies"].values() for name in values}
    assert [name for name in ADAPTERS if not any(re.split(r"[\[<>=~]", extra)[0] == name for extra in extras)] == []
    assert [name for name in ADAPTERS if name not in root["tool"]["uv"]["sources"]] == []


def test_no_extra_names_a_distribution_of_ours_that_has_no_folder() -> None:
    root = _read_toml(ROOT / "pyproject.toml")
    named = {
        re.split(r"[\[<>=~]", name)[0]
        for values in root["project"]["optional-dependencies"].values()
        for name in values
    }
    assert {name for name in named if name.startswith("wove-")} <= {*ADAPTERS, "wove-core"}


def test_the_extra_all_leaves_arq_out() -> None:
    everything = _read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]["all"]
    assert not any("arq" in name for name in everything)


@pytest.mark.parametrize("folder", ["wove-core", *ADAPTERS])
def test_a_distribution_folder_is_complete(folder: str) -> None:
    project = _read_toml(ROOT / folder / "pyproject.toml")["project"]
    package = folder.replace("-", "_") if folder != "wove-core" else "wove"
    assert [
        name
        for name in ("README.md", "CHANGELOG.md", "LICENSE", f"src/{package}/py.typed")
        if not (ROOT / folder / name).is_file()
    ] == []
    assert project["name"] == folder
    assert project["requires-python"] == ">=3.11"
    if folder != "wove-core":
        assert project["entry-points"]["wove.adapters"]
