"""Messages in a list, and which of them a worker may take for the first ones."""

import json
from collections.abc import AsyncIterator

import pytest
from taskiq_backend import RedisServer, lose_first_answer

from wove_taskiq.jobs import Jobs
from wove_taskiq.settings import FIRST_LABEL, read_settings

QUEUE = "list-of-its-own"


@pytest.fixture
async def jobs(redis_server: RedisServer) -> AsyncIterator[Jobs]:
    jobs = Jobs(read_settings({"broker": redis_server.url(), "queue_name": QUEUE}))
    await jobs.connect()
    yield jobs
    await jobs.close()


def _firsts(redis_server: RedisServer) -> list[bool]:
    with redis_server.client() as client:
        return [FIRST_LABEL in json.loads(each)["labels"] for each in client.lrange(QUEUE, 0, -1)]


async def test_a_message_says_that_it_was_not_sent_before(jobs: Jobs, redis_server: RedisServer) -> None:
    entries = await jobs.send([("one", {"run_id": "one"})])
    assert _firsts(redis_server) == [True]
    await jobs.remove(entries)  # type: ignore[arg-type]


async def test_of_a_message_that_was_sent_again_both_are_removed(
    jobs: Jobs, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_answer(monkeypatch)
    entries = await jobs.send([("one", {"run_id": "one"})])
    assert sorted(_firsts(redis_server)) == [False, True]
    await jobs.remove(entries)  # type: ignore[arg-type]
    assert _firsts(redis_server) == []
