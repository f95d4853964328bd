"""What passes from a worker to a process that was forked earlier."""

from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job

from wove_rq.parcel import Parcels


@pytest.fixture
def worker() -> Worker:
    # Nothing of this asks the server.
    connection = Redis(port=1)
    queues = [Queue(name, connection=connection) for name in ("high", "low")]
    return Worker(queues, connection=connection, prepare_for_work=False)


def sent(parcels: Parcels, value: Any) -> Any:
    parcel = parcels.packed(value)
    assert parcel is not None
    return parcels.unpacked(parcel)


def test_nothing_is_news_right_after_the_fork(worker: Worker) -> None:
    assert Parcels(worker).news(worker) == {}


def test_an_attribute_that_was_set_is_news(worker: Worker) -> None:
    parcels = Parcels(worker)
    worker.default_result_ttl = 7
    assert sent(parcels, parcels.news(worker)) == {"default_result_ttl": 7}


def test_a_job_under_way_is_news_and_stays_one_object(worker: Worker) -> None:
    parcels = Parcels(worker)
    job = Job.create(print, connection=worker.connection)
    execution = Execution("some", job.id, worker.connection)
    execution._job = job
    worker.executions[execution.id] = execution
    arrived, news = sent(parcels, (job, parcels.news(worker)))
    assert arrived is not job
    assert arrived.connection is worker.connection
    assert news["executions"]["some"].job is arrived


def test_a_list_with_something_more_in_it_is_news(worker: Worker) -> None:
    parcels = Parcels(worker)
    worker.push_exc_handler(print)  # type: ignore[no-untyped-call]
    assert sent(parcels, parcels.news(worker)) == {"_exc_handlers": [print]}


def test_what_was_known_at_the_fork_stays_itself_wherever_it_is_now(worker: Worker) -> None:
    high, low = worker.queues
    # It cannot be pickled.
    worker.push_exc_handler(lambda *arguments: True)  # type: ignore[no-untyped-call]
    handlers = list(worker._exc_handlers)
    parcels = Parcels(worker)
    worker.queues.reverse()
    worker.push_exc_handler(print)  # type: ignore[no-untyped-call]
    news = sent(parcels, parcels.news(worker))
    assert [each is queue for each, queue in zip(news["queues"], (low, high), strict=True)] == [True, True]
    assert news["_exc_handlers"] == [*handlers, print]


def test_what_cannot_be_pickled_and_is_not_known_makes_no_parcel(worker: Worker) -> None:
    assert Parcels(worker).packed(lambda: None) is None
