"""`import wove` stays cheap, and local weaves need no optional package."""

import subprocess
import sys

# What a program that only weaves locally must not pay for.
HEAVY = (
    "cloudpickle",
    "email",
    "grpc",
    "http.client",
    "httpx",
    "importlib_metadata",
    "multiprocessing",
    "pickle",
    "starlette",
    "tomllib",
    "urllib.request",
    "uvicorn",
    "websockets",
)

NEWLY_LOADED = """
import asyncio, sys
before = set(sys.modules)
import wove
print(*sorted(set(sys.modules) - before))
"""

WITHOUT_DISPATCH = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"cloudpickle", "starlette", "uvicorn", "httpx", "grpc", "websockets"}:
            raise ModuleNotFoundError(f"refused {name}", name=name)

sys.meta_path.insert(0, Refuse())
from wove import weave

with weave(limit=3) as w:
    @w.do
    def numbers(limit):
        return list(range(limit))

    @w.do("numbers")
    async def squares(number):
        return number * number

print(w.result.final)
"""


def _run(program: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_importing_wove_loads_nothing_heavy() -> None:
    loaded = _run(NEWLY_LOADED).split()
    assert "wove" in loaded
    assert [name for name in loaded if name in HEAVY or name.startswith(tuple(f"{heavy}." for heavy in HEAVY))] == []


def test_importing_wove_loads_no_third_party_package_but_pluggy() -> None:
    loaded = {name.partition(".")[0] for name in _run(NEWLY_LOADED).split()}
    assert loaded - set(sys.stdlib_module_names) <= {"wove", "pluggy"}


def test_a_local_weave_runs_where_no_dispatch_package_is_installed() -> None:
    assert _run(WITHOUT_DISPATCH) == "[0, 1, 4]"


def test_a_worker_loads_only_what_a_synchronous_task_needs() -> None:
    program = """
import sys
from wove.backend.execution import TaskExecution
import wove.backend_worker, wove.integrations.worker
event = TaskExecution({"run_id": "run-1", "task_id": "name", "callable": lambda: 42, "args": {}}).run()
unwanted = {"asyncio", "concurrent", "datetime", "email", "pathlib", "random", "shutil", "ssl", "tempfile", "urllib"}
print(event["result"], unwanted & set(sys.modules))
"""
    assert _run(program) == "42 set()"
