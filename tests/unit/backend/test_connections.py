"""The worker's HTTP client: one connection for many requests, honest about every way in which one can fail."""

import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.event_server import DROP, EventServer, Move, Request, event_server
from wove.backend.answers import Answer
from wove.backend.connections import Connections, target_of


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server


@pytest.fixture
def client() -> Iterator[Connections]:
    client = Connections()
    yield client
    client.close()


def _post(
    client: Connections,
    server: EventServer,
    body: bytes = b'{"type": "log"}',
    *,
    seconds: float = 20.0,
    longest: int = 1000,
) -> Answer:
    return client.exchange(
        target_of(server.url), headers={"x-test": "1"}, body=body, answer_seconds=seconds, longest_answer=longest
    )


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://web:9010/wove/events/t", "http://web:9010", "/wove/events/t"),
        ("http://web/a?b=c", "http://web:80", "/a?b=c"),
        ("https://web.example/x", "https://web.example:443", "/x"),
        ("http://[::1]:80/x", "http://[::1]:80", "/x"),
        ("http://user:secret@web:1/x", "http://web:1", "/x"),
        ("http://web", "http://web:80", "/"),
    ],
)
def test_a_url_has_an_origin_that_may_be_shown_and_a_path_that_may_not(url: str, origin: str, path: str) -> None:
    target = target_of(url)
    assert (target.origin, target.path) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://web/secret",
        "http:///secret",
        "http://web:port/secret",
        "/secret",
        "http://web/se cret",
        "http://web/sécret",
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port/wove/events/<token>") as raised:
        target_of(url)
    assert "cret" not in str(raised.value)


def test_a_request_carries_its_headers_and_body(client: Connections, server: EventServer) -> None:
    answer = _post(client, server)
    assert (answer.status, answer.body) == (200, b'{"cancel": false, "lease": 30.0}')
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/wove/events/the-token")
    assert request.headers["x-test"] == "1"
    assert request.headers["content-length"] == "15"
    assert request.headers["host"] == server.url.split("/")[2]


def test_one_request_after_another_goes_over_one_connection(client: Connections, server: EventServer) -> None:
    for _ in range(5):
        _post(client, server)
    assert server.connections == 1


def test_requests_at_the_same_time_have_a_connection_each(client: Connections, server: EventServer) -> None:
    together = threading.Barrier(3)
    server.rule = lambda request: Move(after=lambda: together.wait(20))
    threads = [threading.Thread(target=_post, args=(client, server)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert server.connections == 3


def test_a_connection_that_was_closed_meanwhile_is_replaced(client: Connections, server: EventServer) -> None:
    _post(client, server)
    server.hang_up()
    assert _post(client, server).status == 200
    assert server.connections == 2


def test_a_connection_that_closes_instead_of_answering_is_replaced_once(
    client: Connections, server: EventServer
) -> None:
    _post(client, server)
    server.script(DROP)
    assert _post(client, server).status == 200
    assert len(server.requests) == 3
    server.script(DROP, DROP)
    with pytest.raises(ConnectionError):
        _post(client, server)


def test_a_connection_that_the_server_wants_to_close_is_not_kept(client: Connections, server: EventServer) -> None:
    server.rule = lambda request: Move(headers={"connection": "close"})
    _post(client, server)
    _post(client, server)
    assert server.connections == 2


def test_a_refused_connection_is_an_os_error(client: Connections, server: EventServer) -> None:
    server.close()
    with pytest.raises(ConnectionRefusedError):
        _post(client, server)


def test_a_server_that_never_answers_is_a_timeout(client: Connections, server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait)
    with pytest.raises(TimeoutError):
        _post(client, server, seconds=0.05)
    released.set()


def test_a_server_that_answers_byte_by_byte_is_a_timeout_too(client: Connections, server: EventServer) -> None:
    ended = threading.Event()

    def trickle(request: Request) -> Move:
        return Move(raw=b"HTTP/1.1 200 OK\r\nx-slow: ", after=None)

    server.rule = trickle

    def feed() -> None:
        while not ended.wait(0.02):
            for connection in server.open_sockets:
                with contextlib.suppress(OSError):
                    connection.sendall(b"a")

    feeder = threading.Thread(target=feed)
    feeder.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        _post(client, server, seconds=0.3)
    assert time.monotonic() - began < 10
    ended.set()
    feeder.join(20)


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", b"\x00" * 70_000],
    ids=len,
)
def test_an_answer_that_is_not_http_is_a_connection_error(client: Connections, server: EventServer, raw: bytes) -> None:
    server.rule = lambda request: Move(raw=raw, after=None)
    server.close_after_answer = True
    with pytest.raises(ConnectionError):
        _post(client, server)


def test_an_endless_answer_is_not_read_to_its_end(client: Connections, server: EventServer) -> None:
    server.rule = lambda request: Move(body=b"x" * 100_000)
    with pytest.raises(ConnectionError, match="longer than 1,000 bytes"):
        _post(client, server)


def test_a_redirect_is_an_answer_like_any_other(client: Connections, server: EventServer) -> None:
    server.rule = lambda request: Move(status=307, headers={"location": server.url + "/elsewhere"})
    assert _post(client, server).status == 307
    assert len(server.requests) == 1


def test_an_early_answer_to_a_body_that_is_not_read_is_understood(client: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        server = threading.Thread(target=refuse)
        server.start()
        port = listener.getsockname()[1]
        answer = client.exchange(target_of(f"http://127.0.0.1:{port}/x"), headers={}, body=b"x" * 50_000_000)
        server.join(20)
    assert answer.status == 413


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_variables_are_ignored(
    client: Connections, server: EventServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert _post(client, server).status == 200


@pytest.mark.parametrize("value", ["a\r\nevil: 1", "a\nevil: 1"])
def test_a_header_cannot_smuggle_another_one(client: Connections, server: EventServer, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        client.exchange(target_of(server.url), headers={"x": value})
    assert server.requests == []


def test_few_idle_connections_are_kept(client: Connections) -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(event_server()) for _ in range(12)]
        for server in servers:
            _post(client, server)
        assert client.idle == 8


def test_closing_leaves_no_socket(client: Connections, server: EventServer) -> None:
    _post(client, server)
    client.close()
    assert client.idle == 0
    gc.collect()
    assert _post(client, server).status == 200


def test_a_forked_child_leaves_the_parent_s_connection_alone(server: EventServer) -> None:
    from wove.backend.connections import connections

    target = target_of(server.url)
    connections().exchange(target, headers={}, body=b'{"type": "log"}')
    child = os.fork()
    if child == 0:
        status = 1
        try:
            answer = connections().exchange(target, headers={}, body=b'{"type": "heartbeat"}')
            status = 0 if answer.status == 200 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    connections().exchange(target, headers={}, body=b'{"type": "log"}')
    assert [(request.kind, request.connection) for request in server.requests] == [
        ("log", 1),
        ("heartbeat", 2),
        ("log", 1),
    ]
    connections().close()
