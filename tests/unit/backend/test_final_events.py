"""Final events as bytes: any value and exception that can travel, and an error in words for what cannot."""

import threading
from typing import Any

import pytest

from tests.support.commands import frame_of
from wove.backend.execution import TaskExecution
from wove.backend.final_events import final_event_bytes
from wove.backend.frames import deserialize_frame, frame_from_bytes
from wove.backend.types import EventFrame


def _sent(event: EventFrame, **options: Any) -> dict[str, Any]:
    return deserialize_frame(frame_from_bytes(final_event_bytes(event, **options)))


def _returned(value: Any) -> EventFrame:
    return TaskExecution(frame_of(lambda: value)).run()


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("stays here")


class ExitsWhenPickled:
    def __reduce__(self) -> str:
        raise SystemExit("pickling me ends the process")


@pytest.mark.parametrize(
    "value", [threading.Lock(), (number for number in "ab"), Unpicklable(), {"deep": [threading.Lock()]}]
)
def test_a_result_that_cannot_be_pickled_becomes_an_error_that_names_the_task(value: object) -> None:
    frame = _sent(_returned(value))
    assert frame["type"] == "task_error"
    assert frame["error"]["kind"] == "SerializationError"
    assert "result of task 'report'" in str(frame["exception"])


def test_the_error_names_the_part_that_cannot_be_pickled() -> None:
    message = _sent(_returned({"rows": [1, threading.Lock()]}))["error"]["message"]
    assert "'_thread.lock'" in message or "'lock'" in message
    assert "['rows'][1]" in message


def test_a_result_that_exits_while_it_is_pickled_becomes_an_error() -> None:
    assert _sent(_returned(ExitsWhenPickled()))["error"]["kind"] == "SystemExit"


def test_values_come_back_unchanged() -> None:
    value: dict[str, Any] = {"surrogate": "\ud800", "big": 10**5000, "infinity": float("-inf"), "bytes": b"\x00\xff"}
    value["self"] = value
    sent = _sent(_returned(value))["result"]
    assert sent["self"] is sent
    assert {name: sent[name] for name in ("surrogate", "big", "infinity", "bytes")} == {
        name: value[name] for name in ("surrogate", "big", "infinity", "bytes")
    }
    nan = _sent(_returned(float("nan")))["result"]
    assert nan != nan


def test_a_result_over_the_limit_becomes_an_error_with_both_sizes() -> None:
    frame = _sent(_returned("x" * 5000), limit=4000)
    assert frame["error"]["kind"] == "PayloadTooLargeError"
    assert "the limit is 4,000 bytes" in frame["error"]["message"]
    assert frame["exception"].size > 5000


def test_results_as_json_are_plain_values() -> None:
    data = frame_from_bytes(final_event_bytes(_returned({"rows": [1, 2.5, None]}), pickles=False))
    assert data["result"] == {"rows": [1, 2.5, None]}
    assert not any(name.endswith("_pickle") for name in data)


def test_a_result_that_is_not_json_becomes_a_plain_error_where_pickles_are_refused() -> None:
    data = frame_from_bytes(final_event_bytes(_returned({1, 2}), pickles=False))
    assert data["type"] == "task_error"
    assert "results='json'" in data["error"]["message"]
    assert not any(name.endswith("_pickle") for name in data)


def test_an_exception_that_cannot_be_rebuilt_is_sent_in_words() -> None:
    class NeedsTwo(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}")

    def task() -> None:
        raise NeedsTwo("one", "two")

    frame = _sent(TaskExecution(frame_of(task)).run())
    assert "exception" not in frame
    assert (frame["error"]["kind"], frame["error"]["message"]) == ("NeedsTwo", "one and two")
    assert "in task" in frame["error"]["traceback"]
