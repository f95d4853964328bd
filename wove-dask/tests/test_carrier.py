"""What the scheduler remembers of tasks, without a scheduler."""

from types import SimpleNamespace
from typing import Any

import pytest
from distributed.batched import BatchedSend

from wove_dask.carrier import BEFORE, BEGUN, CLIENT, OUTCOME, WAS_ASSIGNED, WAS_BEGUN, Carrier

KEY, WORKER = "wove_report-1", "tcp://10.0.0.1:4000"


class Comm:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.next_deadline: float | None = 1.0

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def task(**annotations: str) -> SimpleNamespace:
    return SimpleNamespace(annotations=annotations)


@pytest.fixture
def scheduler() -> SimpleNamespace:
    return SimpleNamespace(
        stream_handlers={},
        client_comms={"mine": Comm()},
        stream_comms={WORKER: Comm()},
        tasks={KEY: task(**{CLIENT: "mine"}), "theirs": task()},
    )


@pytest.fixture
def carrier(scheduler: SimpleNamespace) -> Carrier:
    carrier = Carrier()
    carrier.start(scheduler)
    return carrier


def test_an_outcome_goes_to_the_client_that_waits_for_it(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    scheduler.stream_handlers[OUTCOME](client="mine", run_id="run-1", outcome=b"{}", worker=WORKER)
    assert scheduler.client_comms["mine"].sent == [{"op": OUTCOME, "run_id": "run-1", "outcome": b"{}"}]


def test_an_outcome_whose_client_has_gone_is_dropped(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    scheduler.stream_handlers[OUTCOME](client="gone", run_id="run-1", outcome=b"{}", worker="tcp://gone")
    assert scheduler.client_comms["mine"].sent == []


async def test_an_outcome_whose_client_goes_at_that_moment_does_not_cost_its_worker_the_connection(
    scheduler: SimpleNamespace, carrier: Carrier
) -> None:
    # Dask forgets a client some turns of its loop after the client's connection has been closed.
    closing = BatchedSend(interval="2ms")
    closing.comm = SimpleNamespace(closed=lambda: True)
    scheduler.client_comms["closing"] = closing
    scheduler.stream_handlers[OUTCOME](client="closing", run_id="run-1", outcome=b"{}", worker=WORKER)
    assert scheduler.stream_comms[WORKER].next_deadline is None


def test_a_worker_that_has_ended_a_task_need_not_wait_for_another_one(
    scheduler: SimpleNamespace, carrier: Carrier
) -> None:
    scheduler.stream_handlers[OUTCOME](client="mine", run_id="run-1", outcome=b"{}", worker=WORKER)
    assert scheduler.stream_comms[WORKER].next_deadline is None


@pytest.mark.parametrize(
    ("start", "finish"), [("processing", "released"), ("memory", "released"), ("processing", "waiting")]
)
def test_a_task_that_has_begun_is_marked_when_it_is_assigned_again(
    scheduler: SimpleNamespace, carrier: Carrier, start: str, finish: str
) -> None:
    scheduler.stream_handlers[BEGUN](key=KEY, worker=WORKER)
    carrier.transition(KEY, start, finish, stimulus_id="")
    assert scheduler.tasks[KEY].annotations == {CLIENT: "mine", BEFORE: WAS_BEGUN}


def test_a_task_that_was_only_assigned_is_marked_as_such(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    carrier.transition(KEY, "processing", "released", stimulus_id="")
    assert scheduler.tasks[KEY].annotations == {CLIENT: "mine", BEFORE: WAS_ASSIGNED}


def test_a_task_on_its_way_to_its_first_worker_is_not_marked(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    for start, finish in (("released", "waiting"), ("waiting", "queued"), ("queued", "processing")):
        carrier.transition(KEY, start, finish, stimulus_id="")
    carrier.transition(KEY, "processing", "memory", stimulus_id="")
    assert scheduler.tasks[KEY].annotations == {CLIENT: "mine"}


def test_tasks_of_others_are_left_alone(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    carrier.transition("theirs", "processing", "released", stimulus_id="")
    assert scheduler.tasks["theirs"].annotations == {}


def test_a_key_that_is_given_again_after_its_task_was_forgotten_is_a_new_task(
    scheduler: SimpleNamespace, carrier: Carrier
) -> None:
    scheduler.stream_handlers[BEGUN](key=KEY, worker=WORKER)
    carrier.transition(KEY, "released", "forgotten", stimulus_id="")
    scheduler.tasks[KEY] = task(**{CLIENT: "mine"})
    carrier.transition(KEY, "processing", "released", stimulus_id="")
    assert scheduler.tasks[KEY].annotations[BEFORE] == WAS_ASSIGNED


def test_a_task_that_is_gone_already_is_not_remembered(scheduler: SimpleNamespace, carrier: Carrier) -> None:
    del scheduler.tasks[KEY]
    scheduler.stream_handlers[BEGUN](key=KEY, worker=WORKER)
    scheduler.tasks[KEY] = task(**{CLIENT: "mine"})
    carrier.transition(KEY, "processing", "released", stimulus_id="")
    assert scheduler.tasks[KEY].annotations[BEFORE] == WAS_ASSIGNED
