"""Signs of life while a task runs, and the answers to them that stop it."""

import asyncio
import threading
import time

import pytest

from tests.support.event_server import CANCEL, OVER, EventServer, Move, Request, final_event
from tests.support.payloads import payload_for
from tests.support.worker_tasks import execute_in_place
from tests.unit.integrations.conftest import Run
from wove.errors import DeliveryGivenUpError


# Fault 30: the weave gives up while the task runs.
@pytest.mark.parametrize("move", [CANCEL, OVER, Move(409)], ids=["cancel", "over", "taken"])
def test_a_running_synchronous_task_is_stopped(execute: Run, server: EventServer, move: Move) -> None:
    server.rule = lambda request: move if request.kind == "heartbeat" else Move(body={"cancel": False, "lease": 0.3})

    def task() -> None:
        while True:
            time.sleep(0.001)

    execute(payload_for(server.url, task) | {"lease": 0.3})
    assert server.kinds[:2] == ["task_started", "heartbeat"]
    assert ("task_cancelled" in server.kinds) is (move is CANCEL)
    assert not {"task_result", "task_error"} & set(server.kinds)


@pytest.mark.parametrize("move", [CANCEL, OVER], ids=["cancel", "over"])
def test_a_running_coroutine_is_stopped(execute: Run, server: EventServer, move: Move) -> None:
    server.rule = lambda request: move if request.kind == "heartbeat" else Move(body={"cancel": False, "lease": 0.3})
    execute(payload_for(server.url, asyncio.sleep, delay=60) | {"lease": 0.3})
    assert ("task_cancelled" in server.kinds) is (move is CANCEL)
    assert "task_result" not in server.kinds


# Fault 20.
@pytest.mark.parametrize("busy", ["computing", "awaiting", "blocking the loop"])
def test_heartbeats_go_on_whatever_the_task_does(execute: Run, server: EventServer, busy: str) -> None:
    enough = threading.Event()

    def compute() -> str:
        while not enough.is_set():
            sum(range(1000))
        return "done"

    async def wait() -> str:
        await asyncio.to_thread(enough.wait, 30)
        return "done"

    async def block() -> str:
        return compute()

    def count(request: Request) -> Move:
        if server.kinds.count("heartbeat") >= 3:
            enough.set()
        return Move(body={"cancel": False, "lease": 0.3})

    server.rule = count
    task = {"computing": compute, "awaiting": wait, "blocking the loop": block}[busy]
    execute_in_place(execute, server, task, lease=0.3)
    assert final_event(server)["result"] == "done"


# Fault 32: the owner is gone; three leases are 0.9 s.
def test_a_task_whose_weave_has_been_silent_for_three_leases_is_stopped(execute: Run, server: EventServer) -> None:
    server.rule = lambda request: Move(body={"cancel": False, "lease": 0.3})

    def task() -> None:
        while True:
            time.sleep(0.001)

    payload = payload_for(server.url, task) | {"lease": 0.3}

    def close() -> None:
        server.wait_for("heartbeat")
        server.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    closing.join(20)
