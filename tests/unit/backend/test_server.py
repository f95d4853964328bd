"""The server and its process: forks, exits, missing packages, and what a process pays for."""

import subprocess
import sys
import textwrap
import time

import pytest


def run(program: str, *, seconds: float = 30.0) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout.strip()


def test_importing_the_package_loads_no_server_and_no_serializer() -> None:
    program = """
        import sys
        import wove.backend
        print(sorted({"starlette", "uvicorn", "cloudpickle", "httpx"} & set(sys.modules)))
    """
    assert run(program) == "[]"


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_a_missing_package_is_named_with_its_cure(package: str) -> None:
    program = f"""
        import asyncio, sys
        sys.modules[{package!r}] = None
        from wove.errors import MissingDispatchFeatureError
        from wove.backend import BackendCallbackServer
        try:
            asyncio.run(BackendCallbackServer().start())
        except MissingDispatchFeatureError as error:
            print(error)
    """
    assert 'pip install "wove[dispatch]"' in run(program)


def test_the_token_is_not_logged_where_everything_is() -> None:
    program = """
        import asyncio, logging, sys
        logging.basicConfig(level=1, stream=sys.stdout)
        from wove.backend import BackendCallbackServer, post_event
        server = BackendCallbackServer(token="hush-hush-hush")
        asyncio.run(server.start())
        post_event(server.callback_url, {"type": "heartbeat", "run_id": "a"})
    """
    assert "hush" not in run(program)


def test_an_interpreter_with_an_open_server_exits_at_once() -> None:
    program = """
        import asyncio, threading, time
        from wove.backend import BackendCallbackServer, post_event
        server = BackendCallbackServer()
        asyncio.run(server.start())
        post_event(server.callback_url, {"type": "heartbeat", "run_id": "a"})
        print(time.time())
    """
    ended = float(run(program))
    assert time.time() - ended < 2


@pytest.mark.skipif(sys.platform != "linux", reason="counts file descriptors in /proc")
def test_nothing_is_left_after_a_shutdown() -> None:
    program = """
        import asyncio, os, threading, time
        import wove
        from wove.backend import BackendCallbackServer, post_event
        from wove.backend.connections import connections
        before = len(os.listdir("/proc/self/fd"))
        for number in range(3):
            server = BackendCallbackServer()
            asyncio.run(server.start())
            large = {"type": "task_result", "run_id": "a", "result": b"x" * 3_000_000}
            post_event(server.callback_url, large)
            asyncio.run(server.recv())
            connections().close()
            wove.shutdown()
        deadline = time.monotonic() + 10
        while threading.active_count() > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        print(threading.active_count(), len(os.listdir("/proc/self/fd")) - before)
    """
    assert run(program) == "1 0"


FORKED = """
    import asyncio, os, socket, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: forking beside threads.
    from urllib.parse import urlsplit
    from wove.backend import BackendCallbackServer, post_event

    server = BackendCallbackServer()
    asyncio.run(server.start())
    port = urlsplit(server.callback_url).port
    idle = socket.create_connection(("127.0.0.1", port))
    idle.settimeout(10)
    post_event(server.callback_url, {"type": "heartbeat", "run_id": "a"})
    ready, ready_end = os.pipe()
    finish, finish_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            idle.close()
            os.close(finish_end)  # So that the child ends when its parent does.
            os.write(ready_end, b"r")
            os.read(finish, 1)
            status = in_child()
        finally:
            os._exit(status)
    os.read(ready, 1)
    in_parent()
    idle.close()
    os.write(finish_end, b"f")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def forked(*, parent: str, child: str) -> str:
    def function(name: str, body: str) -> str:
        return f"def {name}():\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"

    return run(function("in_parent", parent) + function("in_child", child) + textwrap.dedent(FORKED))


def test_a_forked_child_does_not_keep_the_port_or_connections_open() -> None:
    parent = """
        asyncio.run(server.stop())
        assert idle.recv(1) == b""
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            print("refused")
    """
    assert forked(parent=parent, child="return 0").split() == ["refused", "0"]


def test_the_parents_server_works_on_after_a_fork() -> None:
    parent = """
        post_event(server.callback_url, {"type": "heartbeat", "run_id": "b"})
        asyncio.run(server.recv())
        print(asyncio.run(server.recv())["run_id"])
    """
    assert forked(parent=parent, child="return 0").split() == ["b", "0"]


def test_a_forked_child_has_a_server_of_its_own() -> None:
    child = """
        own = BackendCallbackServer()
        asyncio.run(own.start())
        post_event(own.callback_url, {"type": "heartbeat", "run_id": "child"})
        same_port = urlsplit(own.callback_url).port == port
        received = asyncio.run(own.recv())["run_id"]
        return 0 if received == "child" and not same_port else 2
    """
    assert forked(parent="pass", child=child) == "0"
