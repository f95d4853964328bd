"""The payload: every field of the specification, JSON-safe, small where it has to be."""

import json
import threading
from typing import Any

import pytest

from wove.backend.frames import deserialize_frame
from wove.backend.payload import (
    build_backend_payload,
    join_payload,
    payload_from_b64,
    payload_size,
    payload_to_b64,
    split_payload,
)
from wove.errors import PayloadTooLargeError, SerializationError
from wove.serialization import PYTHON_VERSION

URL = "http://web:9010/wove/events/shared-secret"


def frame(**more: Any) -> dict[str, Any]:
    return {
        "type": "run_task",
        "run_id": "report-1",
        "task_id": "report",
        "callable": lambda size: "x" * size,
        "args": {"size": 3},
        "delivery": {"delivery_timeout": 30.0},
        **more,
    }


def payload(**more: Any) -> Any:
    return build_backend_payload(frame(**more), callback_url=URL, adapter="celery")


def test_a_payload_has_every_field_of_the_specification() -> None:
    built = payload()
    assert {name: value for name, value in built.items() if not name.endswith("_pickle")} == {
        "version": 1,
        "adapter": "celery",
        "callback_url": URL,
        "run_id": "report-1",
        "task_id": "report",
        "task_name": "report",
        "delivery": {"delivery_timeout": 30.0},
        "attempt": 1,
        "deadline": None,
        "trace": {},
        "python": PYTHON_VERSION,
    }


def test_a_payload_carries_attempt_deadline_trace_and_name_of_its_frame() -> None:
    built = payload(task_name="Report", attempt=3, deadline=1e9, trace={"traceparent": "00-1"})
    assert (built["task_name"], built["attempt"], built["deadline"]) == ("Report", 3, 1e9)
    assert built["trace"] == {"traceparent": "00-1"}


def test_a_payload_is_json_and_its_worker_gets_the_callable_and_arguments() -> None:
    arrived = json.loads(json.dumps(payload()))
    task = deserialize_frame({**arrived, "type": "run_task"})
    assert task["callable"](**task["args"]) == "xxx"


def test_an_idempotency_key_that_is_still_a_callable_stays_here() -> None:
    assert payload(delivery={"delivery_idempotency_key": str})["delivery"] == {}


def test_a_delivery_policy_that_is_not_json_names_the_task() -> None:
    with pytest.raises(SerializationError, match="delivery policy of task 'report'"):
        payload(delivery={"delivery_timeout": {1, 2}})


def test_an_argument_that_cannot_travel_names_the_task() -> None:
    with pytest.raises(SerializationError, match="the arguments of task 'report'"):
        payload(args={"lock": threading.Lock()})


def test_a_closure_that_cannot_travel_names_the_task_and_the_variable() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"the callable of task 'report'.*'lock'"):
        payload(callable=lambda: lock)


@pytest.mark.parametrize("missing", ["run_id", "task_id", "callable"])
def test_a_frame_that_lacks_a_key_is_refused_by_name(missing: str) -> None:
    incomplete = frame()
    del incomplete[missing]
    with pytest.raises(ValueError, match=missing):
        build_backend_payload(incomplete, callback_url=URL, adapter="celery")


def test_only_a_run_task_frame_makes_a_payload() -> None:
    with pytest.raises(ValueError, match="cancel_task"):
        payload(type="cancel_task")


def test_base64_text_brings_the_payload_back() -> None:
    built = payload()
    text = payload_to_b64(built)
    assert text.isascii()
    assert text.isprintable()
    assert payload_from_b64(f" {text}\n") == built


@pytest.mark.parametrize("text", ["?", "aGk=", "W10=", "eyI=", "ümlaut"])
def test_text_that_is_no_payload_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="payload") as caught:
        payload_from_b64(text)
    assert text not in str(caught.value)


def test_a_payload_that_fits_is_not_split() -> None:
    whole = payload()
    assert split_payload(whole, payload_size(whole)) == (whole, None)
    assert split_payload(whole, None) == (whole, None)


def test_a_payload_that_is_too_large_leaves_its_pickles_behind() -> None:
    whole = payload(args={"size": "x" * 100_000})
    small, body = split_payload(whole, 4096)
    assert body is not None
    assert payload_size(small) <= 4096
    assert small["claim"]["size"] == len(body)
    kept = {name: value for name, value in small.items() if name != "claim"}
    assert kept == {name: value for name, value in whole.items() if not name.endswith("_pickle")}
    assert join_payload(json.loads(json.dumps(small)), body) == whole


def test_a_body_that_is_not_the_claimed_one_is_refused() -> None:
    small, body = split_payload(payload(args={"size": "x" * 100_000}), 4096)
    assert body is not None
    for other in (body[:-1] + b" ", body + b" ", b""):
        with pytest.raises(ValueError, match="task 'report' is not what was submitted"):
            join_payload(small, other)


def test_a_limit_that_not_even_the_rest_fits_names_the_task_and_the_numbers() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"task 'report'.*100 bytes") as caught:
        split_payload(payload(), 100)
    assert caught.value.limit == 100


def test_the_size_of_a_payload_is_that_of_its_json() -> None:
    built = build_backend_payload(frame(), callback_url="http://here/é", adapter="m")
    assert payload_size(built) == len(json.dumps(built))
