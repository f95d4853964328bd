"""Workers and tasks that fork."""

import os

from tests.support.event_server import EventServer, final_event
from tests.support.payloads import payload_for
from tests.support.worker_tasks import call_shared, shared
from wove.integrations.worker import run


def test_a_forked_worker_has_its_own_connection_and_heartbeats(server: EventServer) -> None:
    run(payload_for(server.url, lambda: "parent"))
    payload = payload_for(server.url, lambda: "child") | {"lease": 0.3}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(payload)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    run(payload_for(server.url, lambda: "parent again"))
    assert [request.connection for request in server.requests] == [1, 1, 2, 2, 1, 1]


def test_a_task_that_forks_and_returns_twice_answers_once(server: EventServer) -> None:
    pids: list[int] = []

    def task() -> str:
        pids.append(os.fork())
        return "parent" if pids[0] else "child"

    shared["task"] = task
    parent = os.getpid()
    try:
        run(payload_for(server.url, call_shared))
    finally:
        if os.getpid() != parent:
            os._exit(0)
    os.waitpid(pids[0], 0)
    assert final_event(server)["result"] == "parent"
