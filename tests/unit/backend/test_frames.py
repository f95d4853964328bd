"""The codec: what survives the way through JSON, what is refused, what becomes an error."""

import asyncio
import json
import math
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tripwire import Raises, Tripwire, unpickled
from wove.backend.frames import (
    MAX_ID_LENGTH,
    check_event_type,
    check_frame,
    deserialize_event,
    deserialize_frame,
    frame_from_bytes,
    frame_to_bytes,
    frames_from_bytes,
    serialize_frame,
)
from wove.errors import SerializationError
from wove.serialization import PYTHON_VERSION, dumps, encode


class TwoArguments(Exception):
    """Pickles, but its pickle cannot make it again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("stays here")


@pytest.fixture(autouse=True)
def _reset() -> None:
    unpickled.clear()


def event(kind: str = "task_result", **more: Any) -> dict[str, Any]:
    return {"type": kind, "run_id": "report-1", "task_id": "report", **more}


def there_and_back(frame: dict[str, Any], **how: Any) -> dict[str, Any]:
    return deserialize_frame(frame_from_bytes(frame_to_bytes(frame, **how)), **how)


def test_a_result_comes_back_as_it_was() -> None:
    assert there_and_back(event(result={1: (2, {3})})) == event(result={1: (2, {3})})


def test_a_command_brings_its_callable_and_arguments() -> None:
    frame = there_and_back(event("run_task", callable=lambda x: x + 1, args={"x": 41}, attempt=2))
    assert frame["callable"](**frame["args"]) == 42
    assert frame["attempt"] == 2


def test_a_serialized_frame_is_json() -> None:
    wire = serialize_frame(event(result={1, 2}))
    assert json.loads(json.dumps(wire)) == wire
    assert wire["python"] == PYTHON_VERSION


@pytest.mark.parametrize("kind", ["task_started", "heartbeat", "task_cancelled"])
def test_an_event_without_a_value_travels_as_it_is(kind: str) -> None:
    assert serialize_frame(event(kind)) == event(kind)
    assert deserialize_frame(event(kind)) == event(kind)


def test_a_log_event_keeps_its_message_and_level() -> None:
    assert there_and_back(event("log", message="héllo \ud800", level=20)) == event(
        "log", message="héllo \ud800", level=20
    )


def test_nan_surrogates_big_ints_and_cycles_are_unchanged() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    result = there_and_back(event(result=[math.nan, -math.inf, "\ud800", 10**5000, cycle]))["result"]
    assert math.isnan(result[0])
    assert result[1:4] == [-math.inf, "\ud800", 10**5000]
    assert result[4][1] is result[4]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.binary(), st.lists))
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    assert there_and_back(event(result=value))["result"] == value


def test_a_result_that_cannot_be_pickled_names_the_task_and_the_part() -> None:
    with pytest.raises(SerializationError, match=r"the result of task 'report'.*\['lock'\]"):
        serialize_frame(event(result={"lock": threading.Lock()}))


def test_an_argument_that_cannot_be_pickled_names_the_task_and_the_part() -> None:
    with pytest.raises(SerializationError, match=r"the arguments of task 'report'.*\['lock'\]"):
        serialize_frame(event("run_task", callable=len, args={"lock": threading.Lock()}))


def test_an_exception_travels_with_its_plain_description() -> None:
    frame = there_and_back(event("task_error", exception=ValueError("bad")))
    assert isinstance(frame["exception"], ValueError)
    assert frame["error"]["kind"] == "ValueError"
    assert frame["error"]["message"] == "bad"


@pytest.mark.parametrize("error", [TwoArguments("salt", "pepper"), Unpicklable("salt and pepper")])
def test_an_exception_that_cannot_travel_keeps_its_text(error: Exception) -> None:
    frame = there_and_back(event("task_error", exception=error))
    assert "exception" not in frame
    assert frame["error"]["kind"] == type(error).__name__
    assert frame["error"]["message"] == "salt and pepper"


def test_the_workers_own_description_of_an_error_is_kept() -> None:
    error = {"kind": "ValueError", "message": "bad", "traceback": "remote", "retryable": True, "source": "task"}
    assert there_and_back(event("task_error", error=error)) == event("task_error", error=error)


def test_an_error_that_is_not_json_travels_as_a_pickle() -> None:
    wire = serialize_frame(event("task_error", error={"kind": "E", "message": {1, 2}}))
    assert "error" not in wire
    assert deserialize_frame(wire)["error"] == {"kind": "E", "message": {1, 2}}


def test_an_error_that_is_only_text_becomes_a_described_error() -> None:
    assert deserialize_frame(event("task_error", error="boom"))["error"]["message"] == "boom"


@pytest.mark.parametrize("error", [StopIteration(3), SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError()])
def test_exceptions_that_end_more_than_a_task_arrive_as_objects(error: BaseException) -> None:
    assert type(there_and_back(event("task_error", exception=error))["exception"]) is type(error)


def test_a_plain_json_result_needs_no_pickle() -> None:
    assert deserialize_frame(event(result={"rows": 3})) == event(result={"rows": 3})


def test_the_tripwire_of_these_tests_trips() -> None:
    deserialize_frame(event(result_pickle=encode(dumps(Tripwire(), what="it"))))
    assert unpickled == ["loaded"]


def test_a_pickle_in_a_heartbeat_is_dropped_unread() -> None:
    frame = deserialize_frame(event("heartbeat", result_pickle=encode(dumps(Tripwire(), what="it"))))
    assert frame == event("heartbeat")
    assert unpickled == []


@pytest.mark.parametrize("field", ["callable_pickle", "exception_pickle", "error_pickle", "other_pickle"])
def test_a_pickle_that_does_not_belong_to_a_result_is_dropped_unread(field: str) -> None:
    frame = deserialize_frame(event(result=1, **{field: encode(dumps(Tripwire(), what="it"))}))
    assert frame == event(result=1)
    assert unpickled == []


def test_json_only_refuses_a_pickled_result_without_loading_it() -> None:
    with pytest.raises(ValueError, match="results='json'"):
        deserialize_frame(event(result_pickle=encode(dumps(Tripwire(), what="it"))), pickles=False)
    assert unpickled == []


def test_json_only_asks_for_the_plain_error_in_place_of_a_pickled_exception() -> None:
    frame = deserialize_frame(event("task_error", exception_pickle="AAAA"), pickles=False)
    assert "send 'error' as a JSON value" in frame["error"]["message"]


def test_json_only_takes_the_plain_error_beside_a_pickled_exception() -> None:
    error = {"kind": "ValueError", "message": "bad"}
    wire = event("task_error", error=error, exception_pickle=encode(dumps(Tripwire(), what="it")))
    assert deserialize_frame(wire, pickles=False) == event("task_error", error=error)
    assert unpickled == []


def test_json_only_sends_plain_values() -> None:
    assert serialize_frame(event(result=[1, None]), pickles=False) == event(result=[1, None])
    wire = serialize_frame(event("task_error", exception=ValueError("bad")), pickles=False)
    assert wire["error"]["message"] == "bad"
    assert not [name for name in wire if name.endswith("_pickle")]


def test_json_only_says_which_task_returned_something_else() -> None:
    with pytest.raises(SerializationError, match=r"the result of task 'report' as JSON"):
        serialize_frame(event(result={1, 2}), pickles=False)


def test_a_result_from_a_module_that_is_missing_names_the_module() -> None:
    missing = encode(b"cno_such_module\nThing\n.")
    with pytest.raises(SerializationError, match=r"the result of task 'report'.*'no_such_module'"):
        deserialize_frame(event(result_pickle=missing))


def test_a_value_made_by_another_python_says_so() -> None:
    with pytest.raises(SerializationError, match=r"made by Python 2\.7\.1"):
        deserialize_frame(event(result_pickle=encode(b"broken"), python="2.7.1"))


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_a_result_whose_pickle_raises_becomes_the_runs_error(error: type[BaseException]) -> None:
    decoded: list[dict[str, Any]] = []
    wire = event(result_pickle=encode(dumps(Raises(error), what="it")))
    thread = threading.Thread(target=lambda: decoded.append(deserialize_event(wire)))
    thread.start()
    thread.join()
    assert decoded[0]["type"] == "task_error"
    assert decoded[0]["run_id"] == "report-1"
    assert "from the pickle" in decoded[0]["error"]["message"]


def test_a_users_own_interrupt_is_not_taken_for_the_pickles() -> None:
    with pytest.raises(KeyboardInterrupt):
        deserialize_event(event(result_pickle=encode(dumps(Raises(KeyboardInterrupt), what="it"))))


@pytest.mark.parametrize("broken", [{}, {"result_pickle": 3}, {"result_pickle": "?"}, {"result_pickle": "aGk="}])
def test_a_final_event_that_cannot_be_decoded_ends_its_run(broken: dict[str, Any]) -> None:
    frame = deserialize_event(event(**broken))
    assert (frame["type"], frame["error"]["source"]) == ("task_error", "transport")
    assert "report" in frame["error"]["message"]


@pytest.mark.parametrize("broken", [{}, {"error": 3}, {"exception_pickle": encode(pickle.dumps("no exception"))}])
def test_an_error_event_without_a_usable_error_is_still_an_error(broken: dict[str, Any]) -> None:
    frame = deserialize_event(event("task_error", **broken))
    assert frame["type"] == "task_error"
    assert frame["error"]["message"]


LARGE = "x" * 2_000_000


def test_a_large_value_comes_back_as_it_was_and_its_text_is_not_copied() -> None:
    data = frame_to_bytes(event(result=LARGE))
    payload = frame_from_bytes(data)
    assert isinstance(payload["result_pickle"], memoryview)
    assert deserialize_frame(payload) == event(result=LARGE)


def test_large_arguments_come_back_as_they_were() -> None:
    frame = there_and_back(event("run_task", callable=len, args={"obj": LARGE}))
    assert (frame["callable"], frame["args"]) == (len, {"obj": LARGE})


def test_a_large_plain_value_comes_back_as_it_was() -> None:
    assert there_and_back(event(result={"text": LARGE}), pickles=False) == event(result={"text": LARGE})


def test_a_large_pickle_is_refused_where_only_json_is_taken() -> None:
    with pytest.raises(ValueError, match="results='json'"):
        deserialize_frame(frame_from_bytes(frame_to_bytes(event(result=LARGE))), pickles=False)


def test_a_large_value_in_a_heartbeat_is_dropped_unread() -> None:
    data = frame_to_bytes(event(result=LARGE)).replace(b"task_result", b"heartbeat")
    assert deserialize_frame(frame_from_bytes(data)) == event("heartbeat")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "task_result", "run_id": "report-1", "result_pickle": "%s", "result_pickle": "small"}',
        '{"type": "task_result", "run_id": "report-1", "nested": {"result_pickle": "%s"}}',
        '{"type": "task_result", "run_id": "report-1", "odd\\"result_pickle": "%s"}',
        '{"type": "task_result", "run_id": "report-1", "result_pickle": "\\/%s"}',
        '{"type": "task_result", "run_id": "report-1", "message": "\\"result_pickle\\": \\"%s"}',
        '{"type": "task_result", "run_id": "report-1", "result_pickle" : "%s", "message": "\\u00fc"}',
        '[{"result_pickle": "%s"}]',
    ],
)
def test_a_large_object_is_read_as_any_json_parser_reads_it(text: str) -> None:
    data = (text % LARGE).encode()
    expected = json.loads(data)
    if isinstance(expected, list):
        with pytest.raises(ValueError, match="JSON object"):
            frame_from_bytes(data)
        return
    found = frame_from_bytes(data)
    assert {k: bytes(v).decode() if isinstance(v, memoryview) else v for k, v in found.items()} == expected


@pytest.mark.parametrize("cut", [1, 2, 1_000_000])
def test_a_large_object_that_is_cut_off_is_a_value_error(cut: int) -> None:
    with pytest.raises(ValueError, match="frame"):
        frame_from_bytes(frame_to_bytes(event(result=LARGE))[:-cut])


@pytest.mark.parametrize("text", ["?" * 2_000_000, "A" * 2_000_001])
def test_a_large_value_that_is_not_base64_ends_its_run(text: str) -> None:
    for payload in (event(result_pickle=text), frame_from_bytes(json.dumps(event(result_pickle=text)).encode())):
        frame = deserialize_event(payload)
        assert (frame["type"], frame["error"]["source"]) == ("task_error", "transport")


@pytest.mark.parametrize("run_id", [None, "", 7, ["a"], {"a": 1}, "x" * (MAX_ID_LENGTH + 1), "x" * 100_000])
def test_a_run_id_that_is_not_a_short_string_is_refused(run_id: Any) -> None:
    with pytest.raises(ValueError, match="run_id"):
        check_frame({"type": "heartbeat", "run_id": run_id})


@pytest.mark.parametrize("task_id", ["", 7, ["a"]])
def test_a_task_id_that_is_not_a_string_is_refused(task_id: Any) -> None:
    with pytest.raises(ValueError, match="task_id"):
        check_frame({"type": "heartbeat", "run_id": "r", "task_id": task_id})


@pytest.mark.parametrize("frame", [[], "x", None, 3, {}, {"type": 3}, {"type": ""}])
def test_a_frame_is_an_object_with_a_type(frame: Any) -> None:
    with pytest.raises(ValueError, match="frame"):
        check_frame(frame)


def test_an_unknown_event_type_suggests_the_right_one() -> None:
    with pytest.raises(ValueError, match="Did you mean 'task_result'"):
        check_event_type("task_results")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[1]", b"nul", b'{"a": ' * 200_000, b"[" * 200_000])
def test_bytes_that_are_not_a_json_object_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        frame_from_bytes(data)


@pytest.mark.parametrize(
    ("data", "count"), [(b"", 0), (b'{"type": "a"}', 1), (b'[{"type": "a"}, {}]', 2), (b'{"events": [{}, {}, {}]}', 3)]
)
def test_an_answer_holds_one_event_a_list_or_none(data: bytes, count: int) -> None:
    assert len(frames_from_bytes(data)) == count


def test_an_answer_with_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="frame"):
        frames_from_bytes(b"[1, 2]")


def test_a_value_that_is_not_json_is_named() -> None:
    with pytest.raises(SerializationError, match="not JSON"):
        frame_to_bytes(event("log", message=threading.Lock()))
