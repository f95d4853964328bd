"""What an adapter inherits."""

from collections.abc import Sequence
from typing import Any

import pytest

from wove.integrations.base import BackendAdapter, JobState

Submissions = Sequence[tuple[dict[str, Any], dict[str, Any]]]
SETTINGS: dict[str, Any] = {"name": "acme", "config": {}, "callback_url": "http://here", "run_config": {}}


class Bulk(BackendAdapter):
    """Takes submissions in bulk only, and refuses a payload that says so."""

    async def submit_many(self, submissions: Submissions) -> Sequence[str | Exception]:
        return [payload.get("refusal") or f"job of {frame['run_id']}" for payload, frame in submissions]


async def test_an_adapter_that_submits_in_bulk_submits_one_likewise() -> None:
    assert await Bulk(**SETTINGS).submit({}, {"run_id": "report-1"}) == "job of report-1"


async def test_a_refusal_of_a_single_submission_is_raised() -> None:
    with pytest.raises(ConnectionError, match="away"):
        await Bulk(**SETTINGS).submit({"refusal": ConnectionError("away")}, {"run_id": "report-1"})


async def test_an_adapter_that_cannot_submit_is_named() -> None:
    class Mute(BackendAdapter):
        pass

    with pytest.raises(NotImplementedError, match=r"Mute does not implement submit\(\)"):
        await Mute(**SETTINGS).submit({}, {})


def test_a_job_cannot_be_in_a_phase_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"No phase 'runing'\. Did you mean 'running'\? queued, running, finished,"):
        JobState("runing")  # type: ignore[arg-type]
