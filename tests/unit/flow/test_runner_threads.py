"""Which threads the tasks of a graph take: as few as they can do with, and never more than they may."""

import threading

import pytest

from tests.support.tasks import task_named
from tests.support.waiting import wove_threads
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_no_more_synchronous_tasks_than_max_workers_run_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    with weave(max_workers=2) as w:
        for number in range(10):
            w.do(task_named(f"t{number}", "", work, asynchronous=False))
        w.do(range(10))(task_named("items", "item", work, asynchronous=False))
        w.do(range(10), timeout=60.0)(task_named("timed", "item", work, asynchronous=False))
    assert w.result.exception is None
    assert most == 2


def test_a_task_that_becomes_ready_is_not_kept_waiting_by_the_rest_of_a_map() -> None:
    started: list[str] = []
    with weave(max_workers=2) as w:

        @w.do(range(50))
        def items(item: int) -> None:
            started.append("item")
            threading.Event().wait(0.001)

        @w.do
        def first() -> None:
            started.append("first")

        @w.do
        def second(first: None) -> None:
            started.append("second")

    assert started.count("item") == 50
    assert started.index("second") < 30


def test_a_weave_of_asynchronous_tasks_starts_no_thread() -> None:
    before = wove_threads()
    with weave() as w:

        @w.do(range(3))
        async def threads(item: int) -> set[threading.Thread]:
            return wove_threads() - before

    assert w.result.threads == [set(), set(), set()]


def test_a_chain_of_a_thousand_synchronous_tasks_uses_few_threads() -> None:
    names: set[str] = set()
    with weave() as w:
        for number in range(1000):
            needs = f"t{number - 1}" if number else ""
            w.do(
                task_named(f"t{number}", needs, lambda: names.add(threading.current_thread().name), asynchronous=False)
            )
    assert w.result.exception is None
    # How soon a thread is idle again depends on how busy the machine is.
    assert len(names) <= 20
