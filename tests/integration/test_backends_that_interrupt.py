"""Backends that interrupt by SIGINT what the weave has given up: the weave's answers say the same, and come as well."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.event_server import EventServer, Move, event_server
from tests.support.payloads import payload_for
from wove.backend.connections import connections
from wove.integrations.worker import run
from wove.testing import tasks
from wove.testing.board import Board

# Beats are to come soon.
LEASE = 0.3
ACCEPT, CANCEL = (Move(body={"cancel": cancel, "lease": LEASE}) for cancel in (False, True))


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server
    connections().close()


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def clean_up(board: str) -> None:
    try:
        tasks.wait_at(board, "work")
    finally:
        tasks.wait_at(board, "cleaning up")


async def clean_up_later(board: str) -> None:
    try:
        await tasks.wait_at_later(board, "work")
    finally:
        await tasks.wait_at_later(board, "cleaning up")


def interrupt_main_thread() -> None:
    # Unlike `_thread.interrupt_main` it wakes a loop that waits for something.
    identity = threading.main_thread().ident
    assert identity is not None
    signal.pthread_kill(identity, signal.SIGINT)


def run_in_this_thread(payload: dict[str, Any], meanwhile: Callable[[], None]) -> BaseException | None:
    """Run a payload in the main thread, which a signal reaches, and return what the run raises."""
    helper = threading.Thread(target=meanwhile)
    helper.start()
    try:
        run(payload, delivered_once=True)
    except BaseException as error:
        return error
    finally:
        helper.join()
    return None


@pytest.mark.parametrize("task", [clean_up, clean_up_later], ids=["sync", "coroutine"])
def test_a_task_that_its_backend_has_interrupted_is_not_stopped_by_its_weave_as_well(
    server: EventServer, board: Board, task: Callable[..., Any]
) -> None:
    def meanwhile() -> None:
        board.wait_for("work")
        interrupt_main_thread()
        board.wait_for("cleaning up")
        server.rule = lambda request: CANCEL
        # Each answer stops the task.
        server.wait_for("heartbeat", 2 + server.kinds.count("heartbeat"))
        board.release("cleaning up")

    server.rule = lambda request: ACCEPT
    payload = payload_for(server.url, task, board=board.address) | {"lease": LEASE}
    assert isinstance(run_in_this_thread(payload, meanwhile), KeyboardInterrupt)
    (visit,) = board.visits("cleaning up")
    assert board.wait_for_end(visit) == "released"


@pytest.mark.parametrize("task", [clean_up, clean_up_later], ids=["sync", "coroutine"])
def test_a_task_that_its_weave_has_stopped_is_not_interrupted_by_its_backend_as_well(
    server: EventServer, board: Board, task: Callable[..., Any]
) -> None:
    # One answer alone: it stops the task whenever it says so.
    server.script(Move(body={"cancel": True, "lease": 60.0}))

    def meanwhile() -> None:
        board.wait_for("cleaning up")
        interrupt_main_thread()
        board.release("cleaning up")

    assert run_in_this_thread(payload_for(server.url, task, board=board.address), meanwhile) is None
    (visit,) = board.visits("cleaning up")
    assert board.wait_for_end(visit) == "released"
    assert "task_cancelled" in server.kinds
