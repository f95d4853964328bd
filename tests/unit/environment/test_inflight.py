"""The life of runs as pure state: the instructions of single stories."""

from typing import Any

import pytest

from wove.environment.inflight import Cancel, Forget, InFlight, Instructions, Resolve, Submit
from wove.environment.runs import Outcome, RunPolicy
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError
from wove.integrations.base import JobState

GONE = JobState("gone")


class GivenUp(Exception):
    """Why a ticket was abandoned."""


@pytest.fixture
def inflight() -> InFlight:
    return InFlight(lambda ticket: f"{ticket}-again")


def opened(inflight: InFlight, **policy: Any) -> InFlight:
    assert inflight.open("r", RunPolicy(**policy), label="Task 'report'", now=0.0) == [Submit("r", "r")]
    inflight.taken("r")
    return inflight


def resolution(instructions: Instructions) -> Outcome:
    [outcome] = [instruction.outcome for instruction in instructions if isinstance(instruction, Resolve)]
    return outcome


def error_of(instructions: Instructions) -> BaseException:
    error = resolution(instructions).error
    assert error is not None
    return error


def kinds(instructions: Instructions) -> list[str]:
    return [type(instruction).__name__ for instruction in instructions]


def test_a_result_resolves_the_ticket_and_the_executor_forgets_the_run(inflight: InFlight) -> None:
    opened(inflight)
    assert inflight.finished("r", Outcome(42)) == [Resolve("r", Outcome(42)), Forget("r")]
    assert len(inflight) == 0


def test_the_first_final_event_wins(inflight: InFlight) -> None:
    opened(inflight)
    inflight.finished("r", Outcome(1))
    assert inflight.finished("r", Outcome(2)) == []


def test_the_deadline_counts_from_opening_whatever_happens_in_between(inflight: InFlight) -> None:
    opened(inflight, timeout=10.0)
    inflight.alive("r", now=9.0)
    assert inflight.next_due() == 10.0
    instructions = inflight.tick(now=10.0)
    assert kinds(instructions) == ["Cancel", "Resolve", "Forget"]
    assert isinstance(error_of(instructions), DeliveryTimeoutError)


@pytest.mark.parametrize(
    ("progress", "words"),
    [("submitting", "not accepted it yet"), ("submitted", "no worker has started it"), ("running", "not finished")],
)
def test_a_timeout_says_how_far_the_run_got(inflight: InFlight, progress: str, words: str) -> None:
    inflight.open("r", RunPolicy(timeout=1.0), label="Task 'report'", now=0.0)
    if progress != "submitting":
        inflight.taken("r")
    if progress == "running":
        inflight.alive("r", now=0.5)
    message = str(error_of(inflight.tick(now=1.0)))
    assert message.startswith("Task 'report' did not complete within its delivery_timeout of 1 s")
    assert words in message


def test_a_run_that_is_queued_longer_than_its_heartbeat_lives(inflight: InFlight) -> None:
    opened(inflight, heartbeat=2.0)
    assert inflight.next_due() is None


def test_the_heartbeat_clock_starts_with_the_run(inflight: InFlight) -> None:
    opened(inflight, heartbeat=2.0)
    inflight.alive("r", now=100.0)
    assert inflight.tick(now=101.9) == []
    error = error_of(inflight.tick(now=102.0))
    assert isinstance(error, DeliveryTimeoutError)
    assert "delivery_heartbeat_seconds of 2 s" in str(error)


def test_each_sign_of_life_starts_the_heartbeat_clock_again(inflight: InFlight) -> None:
    opened(inflight, heartbeat=2.0)
    for second in range(20):
        inflight.alive("r", now=float(second))
        assert inflight.tick(now=float(second)) == []
    assert inflight.tick(now=20.5) == []
    assert error_of(inflight.tick(now=21.0))


def test_a_worker_that_announced_heartbeats_is_lost_after_four_thirds_of_its_lease(inflight: InFlight) -> None:
    opened(inflight)
    inflight.alive("r", now=0.0, lease=30.0)
    assert inflight.tick(now=39.0) == []
    assert "promised one every 30 s" in str(error_of(inflight.tick(now=40.0)))


def test_a_worker_that_never_announced_heartbeats_may_be_silent(inflight: InFlight) -> None:
    opened(inflight)
    inflight.alive("r", now=0.0)
    assert inflight.next_due() is None


def test_the_announcement_of_the_start_holds_for_later_beats_without_one(inflight: InFlight) -> None:
    opened(inflight)
    inflight.alive("r", now=0.0, lease=30.0)
    inflight.alive("r", now=10.0)
    assert inflight.next_due() == 40.0
    assert inflight.tick(now=40.0) == []
    assert inflight.next_due() == 50.0


def test_the_stated_heartbeat_takes_the_place_of_the_lease(inflight: InFlight) -> None:
    opened(inflight, heartbeat=2.0)
    inflight.alive("r", now=0.0, lease=30.0)
    assert inflight.next_due() == 2.0


def test_a_stalled_loop_is_no_silent_worker(inflight: InFlight) -> None:
    opened(inflight, heartbeat=2.0)
    inflight.alive("r", now=0.0)
    assert inflight.tick(now=60.0) == []
    assert inflight.next_due() == 62.0
    assert error_of(inflight.tick(now=62.0))


def test_a_stalled_loop_is_no_lost_job(inflight: InFlight) -> None:
    opened(inflight)
    inflight.reported("r", GONE, now=0.0)
    assert inflight.tick(now=60.0) == []
    assert inflight.finished("r", Outcome(42)) == [Resolve("r", Outcome(42)), Forget("r")]


def test_a_dead_job_fails_its_task_after_the_grace_with_what_the_backend_said(inflight: InFlight) -> None:
    opened(inflight, grace=5.0)
    inflight.reported("r", JobState("failed", exit_code=137, reason="OOMKilled"), now=10.0)
    assert inflight.tick(now=14.9) == []
    error = error_of(inflight.tick(now=15.0))
    assert isinstance(error, DeliveryOrphanedError)
    assert (error.state, error.exit_code, error.reason) == ("failed", 137, "OOMKilled")
    assert "exit code 137: OOMKilled" in str(error)


def test_a_backend_that_knows_better_shortens_the_grace_and_never_prolongs_it(inflight: InFlight) -> None:
    opened(inflight, grace=5.0)
    inflight.reported("r", JobState("failed", grace=1.0), now=10.0)
    assert inflight.next_due() == 11.0
    assert "within 1 s" in str(error_of(inflight.tick(now=11.0)))
    opened(inflight, grace=0.5)
    inflight.reported("r", JobState("failed", grace=1.0), now=20.0)
    assert inflight.next_due() == 20.5


def test_a_timeout_repeats_why_the_backend_lets_a_job_wait(inflight: InFlight) -> None:
    opened(inflight, timeout=5.0)
    inflight.reported("r", JobState("queued", reason="no worker has a GPU"), now=1.0)
    assert "no worker has started it. The backend says: no worker has a GPU." in str(error_of(inflight.tick(now=5.0)))


def test_a_timeout_of_a_job_that_runs_unheard_points_at_the_way_back(inflight: InFlight) -> None:
    opened(inflight, timeout=5.0)
    inflight.reported("r", JobState("running"), now=1.0)
    said = str(error_of(inflight.tick(now=5.0)))
    assert "nothing was heard of the worker" in said
    assert "callback_url" in said


def test_repeated_reports_do_not_prolong_the_grace(inflight: InFlight) -> None:
    opened(inflight, grace=5.0)
    for second in range(5):
        inflight.reported("r", GONE, now=float(second))
    assert inflight.next_due() == 5.0


@pytest.mark.parametrize("news", ["beat", "state"])
def test_news_of_a_living_job_ends_the_grace(inflight: InFlight, news: str) -> None:
    opened(inflight)
    inflight.reported("r", GONE, now=0.0)
    if news == "beat":
        inflight.alive("r", now=1.0)
    else:
        inflight.reported("r", JobState("running"), now=1.0)
    assert inflight.tick(now=5.0) == []
    assert inflight.next_due() is None


def test_a_result_within_the_grace_counts(inflight: InFlight) -> None:
    opened(inflight)
    inflight.reported("r", JobState("finished"), now=0.0)
    assert resolution(inflight.finished("r", Outcome(42))) == Outcome(42)


def test_a_cancel_is_confirmed_by_the_final_event_and_keeps_its_reason(inflight: InFlight) -> None:
    opened(inflight, ack=5.0)
    reason = GivenUp()
    assert inflight.abandon("r", reason, now=1.0) == [Cancel("r")]
    assert inflight.awaits_confirmation()
    assert inflight.finished("r", Outcome(42)) == [Resolve("r", Outcome(error=reason)), Forget("r")]


def test_a_cancel_is_confirmed_by_the_backend_s_word(inflight: InFlight) -> None:
    opened(inflight, ack=5.0)
    reason = GivenUp()
    inflight.abandon("r", reason, now=1.0)
    assert inflight.reported("r", JobState("running"), now=2.0) == []
    assert inflight.reported("r", JobState("cancelled"), now=3.0) == [Resolve("r", Outcome(error=reason)), Forget("r")]


def test_an_unconfirmed_cancel_ends_after_its_bound_and_says_so(inflight: InFlight) -> None:
    opened(inflight, ack=5.0, timeout=10.0)
    assert inflight.tick(now=10.0) == [Cancel("r")]
    assert inflight.tick(now=14.9) == []
    error = error_of(inflight.tick(now=15.0))
    assert isinstance(error, DeliveryTimeoutError)
    assert "Nothing confirmed within 5 s" in error.__notes__[0]


def test_a_cancel_of_a_dead_job_needs_no_confirmation(inflight: InFlight) -> None:
    opened(inflight, ack=5.0)
    inflight.reported("r", GONE, now=0.0)
    assert kinds(inflight.tick(now=5.0)) == ["Cancel", "Resolve", "Forget"]


def test_the_policy_fail_leaves_the_backend_alone(inflight: InFlight) -> None:
    opened(inflight, orphan="fail", ack=5.0)
    assert kinds(inflight.abandon("r", GivenUp(), now=0.0)) == ["Resolve", "Forget"]


def test_the_policy_detach_does_not_even_close_the_door(inflight: InFlight) -> None:
    opened(inflight, orphan="detach", ack=5.0)
    assert inflight.abandon("r", GivenUp(), now=0.0)[1:] == [Forget("r", detached=True)]


def test_a_lost_run_is_requeued_once_under_a_new_id_after_its_cancel(inflight: InFlight) -> None:
    opened(inflight, orphan="requeue", heartbeat=2.0)
    inflight.alive("r", now=0.0)
    assert inflight.tick(now=2.0) == [Cancel("r"), Forget("r"), Submit("r", "r-again", replaces="r")]
    assert inflight.finished("r", Outcome("late")) == []
    assert inflight.next_due() is None
    inflight.alive("r-again", now=3.0)
    assert isinstance(error_of(inflight.tick(now=5.0)), DeliveryTimeoutError)


def test_a_requeued_run_keeps_the_ticket_and_its_deadline(inflight: InFlight) -> None:
    opened(inflight, orphan="requeue", timeout=10.0)
    inflight.reported("r", GONE, now=0.0)
    inflight.tick(now=5.0)
    assert inflight.ticket_of("r-again") == "r"
    assert inflight.next_due() == 10.0
    assert kinds(inflight.tick(now=10.0)) == ["Cancel", "Resolve", "Forget"]


def test_a_run_that_its_weave_gives_up_is_not_requeued(inflight: InFlight) -> None:
    opened(inflight, orphan="requeue")
    assert kinds(inflight.abandon("r", GivenUp(), now=0.0)) == ["Cancel", "Resolve", "Forget"]


def test_a_lost_executor_ends_every_run_with_its_error(inflight: InFlight) -> None:
    error = ConnectionResetError("gone")
    for name in ("a", "b"):
        inflight.open(name, RunPolicy(orphan="requeue"), label=name, now=0.0)
    instructions = inflight.executor_lost(error)
    assert [item.outcome.error for item in instructions if isinstance(item, Resolve)] == [error, error]
    assert len(inflight) == 0


def test_stimuli_for_unknown_runs_change_nothing(inflight: InFlight) -> None:
    opened(inflight)
    assert inflight.alive("other", now=0.0) == []
    assert inflight.finished("other", Outcome(1)) == []
    assert inflight.reported("other", GONE, now=0.0) == []
    assert inflight.abandon("other", GivenUp(), now=0.0) == []
    assert inflight.broke_protocol("other", GivenUp(), now=0.0) == []
    assert inflight.tickets() == ["r"]
