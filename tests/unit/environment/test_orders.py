"""Orders: the frame, the policy and the run id of one attempt."""

from typing import Any

import pytest

from wove.environment.orders import ACK_SECONDS, Order, dead_job_grace, make_order, new_run_id
from wove.environment.runs import RunPolicy
from wove.errors import ConfigurationError
from wove.options import resolve_options


def order(info: dict[str, Any] | None = None, **options: Any) -> Order:
    return make_order(
        environment="jobs",
        task_name="report",
        task_func=len,
        task_args={"obj": "abc"},
        task_info=info or {},
        options=resolve_options(options),
        scope="here",
        now=lambda: 1000.0,
    )


def test_the_frame_has_every_field_but_the_run_id() -> None:
    assert order({"attempt": 2, "item": 4, "trace": {"traceparent": "00-1"}}).frame == {
        "type": "run_task",
        "task_id": "report",
        "task_name": "report",
        "callable": len,
        "args": {"obj": "abc"},
        "delivery": {},
        "attempt": 2,
        "item": 4,
        "deadline": None,
        "trace": {"traceparent": "00-1"},
        "weave": "",
    }


def test_the_deadline_is_absolute() -> None:
    assert order(delivery_timeout=30.0).frame["deadline"] == 1030.0


def test_the_frame_carries_the_delivery_options_that_are_set() -> None:
    made = order(delivery_timeout=30.0, delivery_orphan_policy="requeue", delivery_max_in_flight=5, retries=3)
    assert made.frame["delivery"] == {"delivery_timeout": 30.0, "delivery_orphan_policy": "requeue"}


def test_the_key_is_resolved_and_valid_within_its_scope() -> None:
    made = order(delivery_idempotency_key="k-{obj}")
    assert made.frame["delivery"] == {"delivery_idempotency_key": "k-abc"}
    assert made.key == ("here", "k-abc")


def test_without_options_a_run_has_no_limits() -> None:
    assert order().policy == RunPolicy()


def test_the_policy_follows_the_options() -> None:
    made = order(
        delivery_timeout=30.0,
        delivery_heartbeat_seconds=2.0,
        delivery_cancel_mode="require_ack",
        delivery_orphan_policy="detach",
    )
    assert made.policy == RunPolicy(timeout=30.0, heartbeat=2.0, ack=ACK_SECONDS, orphan="detach")


def test_attempts_at_the_same_item_are_the_same_work() -> None:
    assert order({"item": 1, "attempt": 1}).work == order({"item": 1, "attempt": 2}).work
    assert order({"item": 1}).work != order({"item": 2}).work
    assert order({"weave": "a"}).work != order({"weave": "b"}).work


def test_the_grace_for_dead_jobs_is_configured() -> None:
    assert dead_job_grace({}, "jobs") == 5.0
    assert dead_job_grace({"dead_job_grace": 0}, "jobs") == 0.0


@pytest.mark.parametrize("value", [-1, "5", True, float("nan"), float("inf"), None])
def test_a_grace_that_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*dead_job_grace"):
        dead_job_grace({"dead_job_grace": value}, "jobs")


@pytest.mark.parametrize(
    "name", ["report", "A_very Long/name.with everything in it, and more", "täsk", "任务", "__x__", "-"]
)
def test_run_ids_are_legal_everywhere(name: str) -> None:
    run_id = new_run_id(name)
    assert len(run_id) <= 63
    assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert run_id[0].isalnum()
    assert run_id[-1].isalnum()
    assert new_run_id(name) != run_id
