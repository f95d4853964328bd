"""What a worker tells its scheduler, where the scheduler cannot be told."""

from types import SimpleNamespace
from typing import Any

import pytest
from distributed.comm import CommClosedError

from tests.support.waiting import wait_in_loop_until
from wove_dask.carrier import CLIENT
from wove_dask.messages import Messages

KEY = "wove_report-1"


class Stream:
    """A worker's stream to its scheduler, which cannot be written to."""

    def __init__(self, failure: Exception) -> None:
        self.comm = self
        self.buffer: list[dict[str, Any]] = [{"op": "task-finished"}]
        self.is_aborted = False
        self._failure = failure

    async def write(self, messages: list[dict[str, Any]], **options: object) -> None:
        raise self._failure

    def abort(self) -> None:
        self.is_aborted = True


def messages_on(stream: Stream) -> Messages:
    task = SimpleNamespace(annotations={CLIENT: "mine"})
    worker: Any = SimpleNamespace(batched_stream=stream, state=SimpleNamespace(tasks={KEY: task}))
    return Messages(worker)


@pytest.mark.parametrize(
    "failure", [CommClosedError("gone"), TypeError("not to be serialized")], ids=lambda e: type(e).__name__
)
async def test_what_cannot_be_sent_is_said_to_be_lost(failure: Exception) -> None:
    messages, lost = messages_on(Stream(failure)), list[str]()
    beginning = messages.begin(KEY)
    messages.end("mine", "run-1", b"{}", lambda: lost.append("run-1"))
    await wait_in_loop_until(lambda: bool(lost))
    assert beginning is not None
    assert not beginning.is_told()
    assert lost == ["run-1"]


async def test_a_message_of_dask_s_that_is_lost_on_the_way_ends_the_connection_as_dask_does() -> None:
    stream, lost = Stream(TypeError("not to be serialized")), list[str]()
    messages_on(stream).end("mine", "run-1", b"{}", lambda: lost.append("run-1"))
    await wait_in_loop_until(lambda: bool(lost))
    assert stream.is_aborted
