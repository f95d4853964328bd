"""Sessions and the public callback server, over real sockets."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

import wove
from tests.support.receiving import Connection, Receiving, post, receiving, signature
from wove.backend import BackendCallbackServer, callback_app, post_event
from wove.backend.frames import frame_to_bytes
from wove.backend.signing import derive_key
from wove.errors import ConfigurationError, EventRefusedError

TOKEN = "a-token-that-nobody-guesses"


def event(run_id: str = "a", kind: str = "heartbeat", **more: Any) -> dict[str, Any]:
    return {"type": kind, "run_id": run_id, "task_id": "report", **more}


_used: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that no other test here has used: what was said once about one stays said."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _used:
            _used.add(port)
            return port


async def test_an_event_frame_arrives_with_its_python_values() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        answer = await receiver.post(event("a", "task_result", result={1: (2,)}), key=key)
        assert (answer.status, answer.json) == (200, {"cancel": False, "lease": 30.0})
        assert await receiver.recv() == event("a", "task_result", result={1: (2,)})


async def test_the_answer_tells_the_runs_own_lease() -> None:
    async with receiving() as receiver:
        await receiver.open_run("a", lease=7.5)
        assert (await receiver.post(event("a"))).json["lease"] == 7.5


async def test_a_start_announces_its_lease_to_the_weave() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        await receiver.post(event("a", "task_started"), key=key, headers={"wove-lease": "6"})
        assert (await receiver.recv())["lease"] == 6.0


async def test_a_second_worker_gets_409_while_the_first_ones_lease_lasts() -> None:
    async with receiving() as receiver:
        key = await receiver.open_run("a")
        lease = {"wove-lease": "30"}
        assert (await receiver.post(event("a", "task_started"), key=key, worker="w1", headers=lease)).status == 200
        assert (await receiver.post(event("a", "task_started"), key=key, worker="w2", headers=lease)).status == 409
        assert (await receiver.post(event("a", "task_started"), key=key, worker="w1", headers=lease)).status == 200
        assert len(await receiver.received_so_far()) == 1


async def test_a_worker_is_told_to_stop_by_the_answer_to_its_next_event() -> None:
    async with receiving() as receiver:
        await receiver.open_run("a")
        await receiver.request_cancel("a")
        assert (await receiver.post(event("a"))).json["cancel"] is True


async def test_an_event_after_the_end_of_its_run_gets_410() -> None:
    async with receiving() as receiver:
        await receiver.open_run("a")
        await receiver.close_run("a")
        await receiver.close_run("a")
        assert (await receiver.post(event("a", "task_result", result=1))).status == 410


async def test_a_late_event_after_the_weave_gets_410() -> None:
    async with receiving() as keeps_the_server, receiving() as receiver:
        assert urlport(keeps_the_server) == urlport(receiver)
        key = await receiver.open_run("a")
        await receiver.close()
        assert (await receiver.post(event("a"), key=key)).status == 410
        assert (await receiver.post(event("a"))).status == 410


async def test_a_closed_session_ends_its_reader_and_opens_no_more_runs() -> None:
    async with receiving() as receiver:
        reading = asyncio.ensure_future(receiver.recv())
        await asyncio.sleep(0)
        await receiver.close()
        await receiver.close()
        with pytest.raises(RuntimeError, match="closed"):
            await reading
        with pytest.raises(RuntimeError, match="closed"):
            await receiver.open_run("a")


async def test_with_a_shared_secret_the_key_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a secret that both sides hold"
    monkeypatch.setenv("WOVE_TEST_SECRET", secret)
    async with receiving(callback_security="env:WOVE_TEST_SECRET") as receiver:
        assert await receiver.open_run("a") is None
        assert (await receiver.post(event("a"), key=derive_key(secret.encode(), "a"))).status == 200
        assert (await receiver.post(event("a"))).status == 401


async def test_sessions_with_the_same_fixed_port_share_it() -> None:
    port = free_port()
    async with receiving(callback_port=port) as one, receiving(callback_port=port) as other:
        assert urlport(one) == urlport(other) == port
        for receiver in (one, other):
            await receiver.open_run("a")
            assert (await receiver.post(event("a"))).status == 200
            assert (await receiver.recv())["run_id"] == "a"


async def test_sessions_with_the_same_port_and_token_get_their_own_events() -> None:
    config: dict[str, Any] = {"callback_port": free_port(), "callback_token": TOKEN}
    async with receiving(**config) as one, receiving(**config) as other:
        assert one.url == other.url
        await one.open_run("a")
        await other.open_run("b")
        for run in ("a", "b"):
            assert (await post(one.url, event(run))).status == 200
        assert (await one.recv())["run_id"] == "a"
        assert (await other.recv())["run_id"] == "b"


async def test_sessions_that_leave_the_port_open_share_one_server() -> None:
    async with receiving() as one, receiving() as other:
        assert urlport(one) == urlport(other)
        assert one.url != other.url


@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "localhost")],
)
async def test_two_hosts_with_one_port_both_work(first: str, second: str) -> None:
    port = free_port()
    async with (
        receiving(callback_port=port, callback_host=first) as one,
        receiving(callback_port=port, callback_host=second) as other,
    ):
        for receiver in (one, other):
            await receiver.open_run("a")
            assert (await receiver.post(event("a"))).status == 200


async def test_a_connection_outlives_the_opening_of_all_addresses() -> None:
    port = free_port()
    async with receiving(callback_port=port) as one:
        await one.open_run("a")
        body = frame_to_bytes(event("a"))
        async with Connection(one.url) as connection, receiving(callback_port=port, callback_host="0.0.0.0"):
            await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
            assert (await connection.answer()).status == 200


async def test_a_port_that_a_stranger_holds_is_named() -> None:
    with stranger() as port:
        taken = f"callback_port {port} on 127.0.0.1 is in use"
        with pytest.raises(ConfigurationError, match=taken):
            await receiving(callback_port=port).__aenter__()
    async with receiving(callback_port=port) as receiver:
        assert urlport(receiver) == port


async def test_a_failure_to_open_all_addresses_leaves_the_open_one_alone() -> None:
    with stranger("127.0.0.2") as port:
        async with receiving(callback_port=port) as receiver:
            with pytest.raises(ConfigurationError, match=str(port)):
                await receiving(callback_port=port, callback_host="0.0.0.0").__aenter__()
            await receiver.open_run("a")
            assert (await receiver.post(event("a"))).status == 200


async def test_all_addresses_are_never_what_workers_are_told() -> None:
    async with receiving(callback_host="0.0.0.0") as receiver:
        assert "0.0.0.0" not in receiver.url
        await receiver.open_run("a")
        assert (await receiver.post(event("a"))).status == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
async def test_ipv6_addresses_work(host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with receiving(callback_host=host) as receiver:
        assert "[::]" not in receiver.url
        await receiver.open_run("a")
        assert (await receiver.post(event("a"))).status == 200


async def test_the_configured_url_is_what_workers_are_told() -> None:
    async with receiving(callback_url="http://web:9010/wove/events/shared-token") as receiver:
        assert receiver.url == "http://web:9010/wove/events/shared-token"
        assert receiver.session.settings.token == "shared-token"


async def test_unsigned_events_from_other_hosts_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    config: dict[str, Any] = {"callback_host": "0.0.0.0", "callback_port": port, "callback_token": "short-token"}
    with caplog.at_level(logging.WARNING, "wove"):
        for _ in range(2):
            async with receiving(**config):
                pass
        async with receiving(callback_host="0.0.0.0", callback_security="signed"):
            pass
        async with receiving():
            pass
    messages = [record.getMessage() for record in caplog.records]
    warnings = [message for message in messages if f"0.0.0.0:{port}" in message]
    assert len(warnings) == 1, messages
    assert "unsigned" in warnings[0]
    assert "only 11 characters" in warnings[0]
    assert "short-token" not in warnings[0]


async def test_a_proxy_that_cannot_know_the_token_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wove"):
        async with receiving(callback_url="http://127.0.0.1/hooks", callback_token=TOKEN):
            pass
        async with receiving(callback_url="http://127.0.0.1"):
            pass
        assert "callback_token is not set" not in caplog.text
        async with receiving(callback_url="http://127.0.0.1/hooks"):
            pass
    assert "callback_token is not set" in caplog.text


async def test_no_token_and_no_key_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    access = logging.getLogger("uvicorn.access")
    handlers, propagates = list(access.handlers), access.propagate
    access.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.DEBUG):
            async with receiving(callback_token=TOKEN) as receiver:
                key = await receiver.open_run("a")
                await receiver.post(event("a"), key=key)
                await receiver.post(event("a"), headers=signature("x", "a", b""))
                await receiver.post(b"{")
                await post(receiver.url + "x", event("a"))
                for shown in (receiver.session, receiver.session.settings, BackendCallbackServer(token=TOKEN)):
                    assert TOKEN not in repr(shown)
    finally:
        access.removeHandler(caplog.handler)
    assert TOKEN not in caplog.text
    assert str(key) not in caplog.text
    # The application may run uvicorn itself: its loggers are left as they are.
    assert (list(access.handlers), access.propagate) == (handlers, propagates)


async def test_shutdown_closes_at_once_and_the_next_session_starts_from_nothing() -> None:
    port = free_port()
    async with receiving(callback_port=port) as receiver:
        await receiver.open_run("a")
        await asyncio.to_thread(wove.shutdown)
        with pytest.raises(ConnectionError):
            await receiver.post(event("a"))
    async with receiving(callback_port=port) as receiver:
        await receiver.open_run("a")
        assert (await receiver.post(event("a"))).status == 200


async def test_a_server_stays_open_for_the_next_session() -> None:
    async with receiving() as receiver:
        await receiver.close()
        assert (await receiver.post(event("a"))).status == 410
    await asyncio.to_thread(wove.shutdown)


async def test_a_callback_server_takes_the_events_of_any_run() -> None:
    server = BackendCallbackServer(token=TOKEN)
    await server.start()
    await server.start()
    try:
        assert server.callback_url.startswith("http://127.0.0.1:")
        assert server.callback_url.endswith(f"/wove/events/{TOKEN}")
        for kind, more in (("task_started", {}), ("task_result", {"result": {1, 2}})):
            await asyncio.to_thread(post_event, server.callback_url, event("run-1", kind, **more))
        assert (await server.recv())["type"] == "task_started"
        assert await asyncio.wait_for(server.recv(), 5) == event("run-1", "task_result", result={1, 2})
        with pytest.raises(EventRefusedError) as caught:
            await asyncio.to_thread(post_event, server.callback_url, event("run-1", "task_result", result=3))
        assert caught.value.status == 410
    finally:
        await server.stop()
        await server.stop()
    with pytest.raises(RuntimeError, match="start"):
        await server.recv()


async def test_a_callback_server_must_be_started() -> None:
    server = BackendCallbackServer()
    with pytest.raises(RuntimeError, match="start"):
        _ = server.callback_url
    with pytest.raises(RuntimeError, match="start"):
        await server.recv()


async def test_a_callback_server_tells_its_public_url() -> None:
    server = BackendCallbackServer(public_url="https://api.internal/hooks", token=TOKEN)
    await server.start()
    try:
        assert server.callback_url == "https://api.internal/hooks"
    finally:
        await server.stop()


def test_a_wrong_argument_is_refused_when_the_server_is_made() -> None:
    with pytest.raises(ConfigurationError, match="callback_port"):
        BackendCallbackServer(port=70000)


async def test_a_callback_server_that_restarts_keeps_its_token() -> None:
    server = BackendCallbackServer(port=free_port())
    await server.start()
    url = server.callback_url
    await server.stop()
    with pytest.raises(OSError, match=r"refused|reset|Connect"):
        await asyncio.to_thread(post_event, url, event())
    await server.start()
    try:
        await asyncio.to_thread(post_event, url, event())
        assert (await server.recv())["type"] == "heartbeat"
    finally:
        await server.stop()


async def test_two_callback_servers_on_one_port_both_work() -> None:
    port = free_port()
    servers = [BackendCallbackServer(port=port), BackendCallbackServer(port=port)]
    try:
        for server in servers:
            await server.start()
        for server in servers:
            await asyncio.to_thread(post_event, server.callback_url, event())
            assert (await asyncio.wait_for(server.recv(), 5))["run_id"] == "a"
    finally:
        for server in servers:
            await server.stop()


def test_a_callback_server_is_used_from_one_loop_after_another() -> None:
    server = BackendCallbackServer()
    asyncio.run(server.start())
    post_event(server.callback_url, event())
    assert asyncio.run(server.recv())["run_id"] == "a"
    asyncio.run(server.stop())


@pytest.mark.parametrize("prefix", ["", "/api/hooks"])
async def test_an_application_mounts_the_receiver_in_its_own_server(prefix: str) -> None:
    port = free_port()
    app = Starlette(routes=[Mount(prefix, app=callback_app)]) if prefix else callback_app
    with application_server(app, port):
        async with receiving(
            callback_server="application", callback_url=f"http://127.0.0.1:{port}{prefix}/wove/events"
        ) as receiver:
            key = await receiver.open_run("small")
            await receiver.open_run("large")
            assert (await receiver.post(event("small", "task_result", result=1), key=key)).status == 200
            large = b"x" * 5_000_000
            assert (await receiver.post(event("large", "task_result", result=large))).status == 200
            found = {frame["run_id"]: frame["result"] for frame in [await receiver.recv(), await receiver.recv()]}
            assert found == {"small": 1, "large": large}
            assert (await post(receiver.url + "x", event("small"))).status == 404


@contextmanager
def application_server(app: Any, port: int) -> Iterator[None]:
    """The project's own server, on a loop of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None, ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def stranger(host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind((host, 0))
        other.listen()
        yield other.getsockname()[1]


def urlport(receiver: Receiving) -> int:
    return int(receiver.url.split("/")[2].rsplit(":", 1)[1])
