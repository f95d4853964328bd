"""Programs that Wove gives a session of Ray, for tests in which they are processes of their own."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

# Programs may use what the tests use.
_ROOT = Path(__file__).parents[2]

_ONCE = """def once(number):
    with weave(number=number) as w:
        @w.do(environment="there")
        def double(number):
            return 2 * number
    return w.result.double
"""

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

GIVEN_UP = (
    """
import os
import sys
import time

os.environ["RAY_CLIENT_RECONNECT_GRACE_PERIOD"] = "1"  # In seconds.

import ray
import wove
from tests.support.relay import Relay
from wove import weave


"""
    + _ONCE
    + """

with Relay(int(sys.argv[1].rpartition(":")[2])) as relay:
    config = {"address": f"ray://127.0.0.1:{relay.port}"}
    if OWN:
        ray.init(config["address"], log_to_driver=False, logging_level="ERROR")
    wove.config(environments={"there": {"executor": "ray", "executor_config": config}})
    print(once(1))
    relay.shut()
    end = time.monotonic() + 60.0
    while ray.is_initialized() and time.monotonic() < end:
        time.sleep(0.1)
    print(ray.is_initialized())
    relay.open()
    try:
        print(once(2))
    except ConnectionError as error:
        print("Call ray.shutdown()" in str(error))
        ray.shutdown()
        print(once(2))
    wove.shutdown()
"""
)

FORGOTTEN = (
    """
import os
import signal
import sys
from pathlib import Path

os.environ["RAY_CLIENT_RECONNECT_GRACE_PERIOD"] = "1"  # In seconds.

import wove
from wove import weave

wove.config(environments={"there": {"executor": "ray", "executor_config": {"address": sys.argv[1]}}})


"""
    + _ONCE
    + """

def sessions():
    lines = Path("/proc").glob("[0-9]*/cmdline")
    return {int(each.parent.name) for each in lines if b"specific-server" in each.read_bytes()}


before = sessions()
print(once(1))
for pid in sessions() - before:
    os.kill(pid, signal.SIGKILL)
for attempt in range(10):
    try:
        print(once(2))
        break
    except ConnectionError as error:
        print(error, file=sys.stderr)
wove.shutdown()
"""
)

REPLACED = (
    """
import sys
import ray
import wove
from wove import weave

wove.config(environments={"there": {"executor": "ray", "executor_config": {"address": sys.argv[1]}}})


"""
    + _ONCE
    + """

print(once(1))
ray.shutdown()
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(once(2))
wove.shutdown()
print(ray.is_initialized())
"""
)


def run_program(directory: Path, text: str, address: str) -> subprocess.CompletedProcess[str]:
    """Return what became of a program that was given the address of a cluster."""
    program = directory / "program.py"
    program.write_text(dedent(text), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(program), address],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200.0,
        check=False,
    )
