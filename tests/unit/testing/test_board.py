"""The board: tasks report in, wait, and are seen leaving."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wove.testing import Board, tasks


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as board:
        yield board


def started(function: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def test_a_task_that_is_released_goes_on(board: Board) -> None:
    thread = started(tasks.wait_at, board.address, "one")
    (visit,) = board.wait_for("one")
    assert visit.ended is None
    board.release("one")
    assert board.wait_for_end(visit) == "released"
    thread.join(5)
    assert not thread.is_alive()


def test_a_coroutine_that_is_released_goes_on(board: Board) -> None:
    async def release_when_there() -> str:
        task = asyncio.create_task(tasks.wait_at_later(board.address, "one"))
        await asyncio.to_thread(board.wait_for, "one")
        board.release("one")
        return await task

    assert asyncio.run(release_when_there()) == "released"


def test_a_label_that_was_released_before_holds_nobody(board: Board) -> None:
    board.release("early")
    assert tasks.wait_at(board.address, "early") == "released"


def test_the_process_of_a_task_is_known(board: Board) -> None:
    assert tasks.attend(board.address, "me") == os.getpid()
    assert board.wait_for("me")[0].pid == os.getpid()


def test_a_task_that_is_cancelled_is_seen_to_stop(board: Board) -> None:
    async def cancel_when_there() -> None:
        task = asyncio.create_task(tasks.wait_at_later(board.address, "one"))
        await asyncio.to_thread(board.wait_for, "one")
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancel_when_there())
    (visit,) = board.visits("one")
    assert board.wait_for_end(visit) == "stopped: CancelledError"


def test_a_task_whose_process_dies_is_seen_to_vanish(board: Board) -> None:
    code = "import sys; from wove.testing import tasks; tasks.vanish(sys.argv[1], 'doomed')"
    with subprocess.Popen([sys.executable, "-c", code, board.address]) as process:
        (visit,) = board.wait_for("doomed")
        assert visit.pid == process.pid
        board.release("doomed")
        assert board.wait_for_end(visit) == "vanished"
        assert process.wait(5) == 0


def test_waiting_for_nobody_says_who_was_there(board: Board) -> None:
    tasks.attend(board.address, "somebody")
    with pytest.raises(TimeoutError, match=r"2 task\(s\) to report in as 'somebody'.*somebody"):
        board.wait_for("somebody", count=2, seconds=0.01)


def test_two_hundred_tasks_may_report_in_at_once(board: Board) -> None:
    threads = [started(tasks.wait_at, board.address, "crowd") for _ in range(200)]
    board.wait_for("crowd", count=200)
    board.release("crowd")
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_a_board_that_closes_holds_nobody() -> None:
    board = Board()
    left: list[Any] = []
    thread = started(lambda: left.append(tasks.wait_at(board.address, "one")))
    board.wait_for("one")
    board.close()
    thread.join(5)
    assert left == ["released"]


def test_an_interrupted_task_is_seen_to_stop(board: Board) -> None:
    code = "import sys; from wove.testing import tasks; tasks.wait_at(sys.argv[1], 'one')"
    with subprocess.Popen([sys.executable, "-c", code, board.address], stderr=subprocess.DEVNULL) as process:
        (visit,) = board.wait_for("one")
        os.kill(visit.pid, 2)
        assert board.wait_for_end(visit) == "stopped: KeyboardInterrupt"
        process.wait(5)
