"""Programs that Wove gives a session of Ray, for tests in which they are processes of their own."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

TWICE = """
import sys
import ray
import wove
from wove import weave

config = {"address": sys.argv[1]}
wove.config(default_environment="here", environments={
    "here": {"executor": "local"}, "there": {"executor": "ray", "executor_config": config}
})


def greet(name):
    print("nobody shall read this")
    return f"hello {name}"


def once():
    with weave(name="Ray") as w:
        w.do(environment="there")(greet)
    return w.result.greet


print(once(), ray.is_initialized())
wove.shutdown()
print(ray.is_initialized())
print(once())
"""

POSTED = """
import sys
import wove
from wove import weave
from wove.backend import receiver
from wove_ray import RayAdapter

RayAdapter.returns_from = 1
config = {"address": sys.argv[1]}
wove.config(default_environment="here", environments={
    "here": {"executor": "local"}, "there": {"executor": "ray", "executor_config": config}
})
take, carried = receiver.take_outcome, []


async def count(*arguments):
    carried.append(arguments)
    await take(*arguments)


receiver.take_outcome = count

with weave() as w:
    @w.do(range(6), environment="there")
    def squares(item):
        return item * item

print(w.result.squares)
print("posted:", 6 - len(carried))
wove.shutdown()
"""


def run_program(directory: Path, text: str, address: str) -> subprocess.CompletedProcess[str]:
    """Return what became of a program that was given the address of a cluster."""
    program = directory / "program.py"
    program.write_text(dedent(text), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program), address],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200.0,
        check=False,
    )
