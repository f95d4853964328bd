"""What adapters read out of frames."""

import time
from typing import Any

import pytest

from wove.integrations.jobs import is_detached, job_id_of, seconds_left


def frame(**delivery: object) -> dict[str, Any]:
    return {"run_id": "report-1", "delivery": delivery}


@pytest.mark.parametrize(
    ("given", "job_id"),
    [
        (frame(delivery_idempotency_key="monthly"), "monthly"),
        (frame(delivery_idempotency_key=None), "report-1"),
        ({"run_id": "report-1", "delivery": None}, "report-1"),
        ({"run_id": "report-1"}, "report-1"),
    ],
)
def test_a_job_is_named_by_the_idempotency_key_or_else_by_the_run(given: dict[str, Any], job_id: str) -> None:
    assert job_id_of(given) == job_id


@pytest.mark.parametrize(
    ("given", "detached"),
    [
        (frame(delivery_orphan_policy="detach"), True),
        (frame(delivery_orphan_policy="cancel"), False),
        (frame(), False),
        ({"run_id": "report-1"}, False),
    ],
)
def test_a_job_is_detached_if_its_orphan_policy_says_so(given: dict[str, Any], detached: bool) -> None:
    assert is_detached(given) is detached


def test_a_job_is_wanted_until_its_deadline_and_a_little_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert seconds_left({"deadline": 1059.5}, frame()) == 60 + 5


def test_a_job_whose_deadline_has_passed_is_still_wanted_for_a_moment() -> None:
    assert seconds_left({"deadline": time.time() - 60}, frame()) == 5


@pytest.mark.parametrize("payload", [{}, {"deadline": None}])
def test_a_job_without_a_deadline_is_wanted_for_ever(payload: dict[str, Any]) -> None:
    assert seconds_left(payload, frame()) is None


def test_a_detached_job_is_wanted_for_ever() -> None:
    assert seconds_left({"deadline": time.time()}, frame(delivery_orphan_policy="detach")) is None
