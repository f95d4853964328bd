"""The fault proxy: what it breaks, it breaks by the script alone."""

import gc
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wove.testing import Fault, FaultProxy
from wove.testing.stage import poll_until


class Target(ThreadingHTTPServer):
    """A receiver that notes what it gets, and may keep its answers for a while."""

    daemon_threads = True

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Target
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        self.server.may_answer.wait(10)
        self.send_response(200 if self.path == "/wove/events/token" else 404)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        thread = threading.Thread(target=target.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield target
        target.shutdown()
        thread.join()


@pytest.fixture
def proxy(target: Target) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", target.server_address[1])) as proxy:
        yield proxy


def post(proxy: FaultProxy, event: str = "task_result", *, seconds: float = 5.0, run_id: str = "run") -> int:
    """Post one event on a new connection and return the status of the answer."""
    host, _, port = proxy.url("").removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=seconds)
    try:
        connection.request("POST", "/wove/events/token", body=json.dumps({"type": event, "run_id": run_id}))
        answer = connection.getresponse()
        assert answer.read() in (b"", b"{}")
        return answer.status
    finally:
        connection.close()


def is_listening(proxy: FaultProxy) -> bool:
    """Tell whether the proxy takes connections, without making one."""
    host, _, port = proxy.url("").removeprefix("http://").partition(":")
    with socket.socket() as rival:
        # With this option, a port is free as soon as nobody listens there.
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            rival.bind((host, int(port)))
        except OSError:
            return True
    return False


def test_a_request_goes_through(proxy: FaultProxy, target: Target) -> None:
    assert post(proxy) == 200
    assert [json.loads(body)["run_id"] for body in target.bodies] == ["run"]


def test_one_connection_serves_many_requests(proxy: FaultProxy, target: Target) -> None:
    host, _, port = proxy.url("").removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    for _ in range(3):
        connection.request("POST", "/wove/events/token", body="{}")
        assert connection.getresponse().read() == b"{}"
    connection.close()
    assert len(target.bodies) == 3


def test_a_dropped_request_reaches_nobody(proxy: FaultProxy, target: Target) -> None:
    proxy.add(Fault("drop"))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        post(proxy)
    assert target.bodies == []
    assert post(proxy) == 200


def test_a_fault_may_concern_one_type_of_event_alone(proxy: FaultProxy) -> None:
    proxy.add(Fault("answer", event="heartbeat", status=503, times=None))
    assert post(proxy, "task_started") == 200
    assert [post(proxy, "heartbeat"), post(proxy, "heartbeat")] == [503, 503]


def test_a_lost_answer_means_that_the_request_arrived(proxy: FaultProxy, target: Target) -> None:
    proxy.add(Fault("lose_answer"))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        post(proxy)
    assert len(target.bodies) == 1
    assert proxy.requests()[0].statuses == [200]


def test_a_duplicated_request_arrives_twice_and_is_answered_once(proxy: FaultProxy, target: Target) -> None:
    proxy.add(Fault("duplicate"))
    assert post(proxy) == 200
    assert len(target.bodies) == 2
    assert proxy.requests()[0].statuses == [200, 200]


def test_a_black_hole_never_answers(proxy: FaultProxy, target: Target) -> None:
    proxy.add(Fault("black_hole"))
    with pytest.raises(TimeoutError):
        post(proxy, seconds=0.2)
    assert target.bodies == []


def test_a_held_request_arrives_when_it_is_let_go(proxy: FaultProxy, target: Target) -> None:
    proxy.add(Fault("hold", event="task_started"))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(post(proxy, "task_started")), daemon=True)
    thread.start()
    proxy.wait_for("task_started")
    assert post(proxy, "task_result") == 200
    proxy.let_go()
    thread.join(5)
    assert answers == [200]
    assert [json.loads(body)["type"] for body in target.bodies] == ["task_result", "task_started"]


def test_a_proxy_that_goes_away_refuses_connections_and_comes_back_on_its_port(proxy: FaultProxy) -> None:
    before = proxy.url("")
    proxy.go_away()
    with pytest.raises(ConnectionRefusedError):
        post(proxy)
    proxy.come_back()
    assert proxy.url("") == before
    assert post(proxy) == 200


def test_a_proxy_that_closes_gives_the_answer_to_what_it_has_passed_on(target: Target) -> None:
    proxy = FaultProxy(("127.0.0.1", target.server_address[1]))
    target.may_answer.clear()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(post, proxy)
        poll_until(lambda: len(target.bodies) == 1, seconds=5.0, what="the request has arrived")
        closing = threads.submit(proxy.close)
        poll_until(lambda: not is_listening(proxy), seconds=5.0, what="the proxy closes")
        target.may_answer.set()
        assert answer.result(5.0) == 200
        closing.result(5.0)


def test_a_proxy_that_closes_breaks_off_what_it_holds(target: Target) -> None:
    proxy = FaultProxy(("127.0.0.1", target.server_address[1]))
    proxy.add(Fault("hold"))
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(post, proxy)
        proxy.wait_for("task_result")
        proxy.close()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            answer.result(5.0)
    assert target.bodies == []


def test_a_recorded_request_can_be_sent_again_and_changed(proxy: FaultProxy, target: Target) -> None:
    post(proxy)
    (request,) = proxy.requests("task_result", run_id="run")
    assert proxy.send(request) == 200
    assert proxy.send(request, path="/wove/events/guess") == 404
    assert proxy.send(request, body=b"forged") == 200
    assert target.bodies[1:] == [request.body, request.body, b"forged"]


def test_waiting_in_vain_says_what_was_seen(proxy: FaultProxy) -> None:
    post(proxy, "heartbeat")
    with pytest.raises(TimeoutError, match="Seen so far: heartbeat"):
        proxy.wait_for("task_result", seconds=0.01)


def test_a_connection_that_comes_as_the_proxy_goes_leaves_no_socket_behind() -> None:
    for _ in range(5):
        proxy = FaultProxy(("127.0.0.1", 1))
        port = int(proxy.url("").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            proxy.close()
        # What is left says so when it is collected, and every warning is an error.
        gc.collect()
