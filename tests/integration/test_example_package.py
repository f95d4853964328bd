"""The example of a third-party package, installed and used by name."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import wove
from wove.runtime import runtime
from wove.testing import WorkerProcess, tasks

ADAPTER = "acme_queue"


@pytest.fixture(autouse=True)
def installed() -> None:
    try:
        distribution("acme-queue")
    except PackageNotFoundError:
        pytest.fail("The example package is not installed. Run: uv pip install -e examples/acme-queue", pytrace=False)


def has_worker(database: Path) -> bool:
    """Tell whether a worker has said hello in a queue's file."""
    if not database.exists():
        return False
    with closing(sqlite3.connect(database)) as connection:
        try:
            return bool(connection.execute("SELECT id FROM workers").fetchall())
        except sqlite3.OperationalError:  # The tables are still to come.
            return False


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a queue with a worker."""
    database = tmp_path / "queue.db"
    command = [str(Path(sys.executable).parent / "acme-worker"), f"acme://{database}"]
    worker = WorkerProcess(command, ready=lambda: has_worker(database))
    try:
        worker.ensure()
        yield f"acme://{database}"
    finally:
        worker.close()


def test_a_task_runs_in_a_backend_that_wove_has_never_heard_of(url: str) -> None:
    before = runtime.snapshot()
    wove.config(environments={"acme": {"executor": ADAPTER, "executor_config": {"url": url}}})
    try:
        with wove.weave(left=40, right=2) as w:
            w.do(environment="acme")(tasks.add)
        assert w.result["add"] == 42
    finally:
        wove.shutdown()
        runtime.restore(before)


def test_the_package_is_found_by_its_entry_point_alone() -> None:
    code = (
        "import sys; from wove.integrations import get_backend_adapter_class;"
        f"assert not any(name.startswith('acme') for name in sys.modules);"
        f"print(get_backend_adapter_class({ADAPTER!r}).__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["AcmeQueueAdapter"]


def test_no_source_of_wove_mentions_the_package() -> None:
    sources = (Path(__file__).parents[2] / "wove-core" / "src").rglob("*.py")
    assert [path.name for path in sources if ADAPTER in path.read_text(encoding="utf-8")] == []
