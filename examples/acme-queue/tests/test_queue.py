"""The queue itself, without Wove."""

from pathlib import Path

import pytest
from acme_queue import Client, QueueUnavailable, create


@pytest.fixture
def client(tmp_path: Path) -> Client:
    url = f"acme://{tmp_path}/queue.db"
    create(url)
    return Client(url)


def test_jobs_are_claimed_in_their_order(client: Client) -> None:
    client.enqueue("default", {"one": {"number": 1}, "two": {"number": 2}})
    assert client.claim("default", "worker") == ("one", {"number": 1})
    assert client.claim("default", "worker") == ("two", {"number": 2})
    assert client.claim("default", "worker") is None


def test_a_job_is_in_the_queue_once(client: Client) -> None:
    client.enqueue("default", {"one": {"number": 1}})
    client.enqueue("default", {"one": {"number": 2}})
    assert client.claim("default", "worker") == ("one", {"number": 1})
    assert client.claim("default", "worker") is None


def test_a_queue_hides_the_jobs_of_another(client: Client) -> None:
    client.enqueue("mine", {"one": {}})
    assert client.claim("yours", "worker") is None


def test_a_cancelled_queued_job_is_never_claimed(client: Client) -> None:
    client.enqueue("default", {"one": {}})
    client.cancel("one")
    assert client.claim("default", "worker") is None
    assert client.all_ids() == []


def test_a_cancelled_running_job_is_reported_to_its_worker(client: Client) -> None:
    client.enqueue("default", {"one": {}})
    client.claim("default", "worker")
    client.cancel("one")
    assert client.cancelled("worker") == ["one"]
    assert client.cancelled("another") == []


def test_a_failed_job_says_why(client: Client) -> None:
    client.enqueue("default", {"one": {}})
    client.claim("default", "worker")
    client.failed("one", -9, "killed by SIGKILL")
    job = client.jobs(["one"])["one"]
    assert (job.state, job.exit_code, job.reason) == ("failed", -9, "killed by SIGKILL")


def test_a_job_of_a_worker_that_nobody_has_heard_of_is_lost(client: Client) -> None:
    client.enqueue("default", {"one": {}, "two": {}})
    client.claim("default", "silent")
    client.say_hello("alive")
    client.claim("default", "alive")
    assert [client.jobs([job])[job].worker_lost for job in ("one", "two")] == [True, False]


def test_a_queue_whose_file_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable, match="is not available"):
        Client(f"acme://{tmp_path}/nowhere.db").check()


def test_the_url_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="acme:///var/lib/acme"):
        Client("redis://localhost")
