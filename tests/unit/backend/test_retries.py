"""When an event is posted again, and when the worker gives up."""

from hypothesis import given
from hypothesis import strategies as st

from wove.backend.retries import DeliveryPolicy, RetrySchedule, may_pass


def _longest(low: float, high: float) -> float:
    return high


def test_pauses_double_from_a_tenth_of_a_second_to_fifteen() -> None:
    schedule = RetrySchedule(DeliveryPolicy(), 0.0, jitter=_longest)
    pauses = [schedule.pause(0.0) for _ in range(10)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]


@given(st.integers(0, 30))
def test_a_pause_lies_anywhere_between_nothing_and_the_longest(failures: int) -> None:
    schedule = RetrySchedule(DeliveryPolicy(), 0.0)
    for _ in range(failures):
        schedule.pause(0.0)
    pause = schedule.pause(0.0)
    assert pause is not None
    assert 0.0 <= pause <= min(0.1 * 2**failures, 15.0)


def test_after_ten_minutes_it_gives_up() -> None:
    schedule = RetrySchedule(DeliveryPolicy(), 1000.0, jitter=_longest)
    assert schedule.pause(1599.0) is not None
    assert schedule.pause(1599.9) is None


def test_what_is_not_found_is_looked_for_half_a_minute_only() -> None:
    schedule = RetrySchedule(DeliveryPolicy(), 0.0)
    assert schedule.pause(29.0, status=404) is not None
    assert schedule.pause(31.0, status=404) is None
    assert schedule.pause(31.0, status=503) is not None


def test_the_receiver_may_ask_for_a_longer_pause() -> None:
    schedule = RetrySchedule(DeliveryPolicy(), 0.0, jitter=_longest)
    assert schedule.pause(0.0, status=503, retry_after=7.0) == 7.1


def test_a_pause_beyond_the_limit_is_not_waited_for() -> None:
    schedule = RetrySchedule(DeliveryPolicy(limit=60), 0.0)
    assert schedule.pause(0.0, status=503, retry_after=61.0) is None


def test_a_worker_in_a_hurry_gives_up_earlier_and_never_later() -> None:
    schedule = RetrySchedule(DeliveryPolicy(limit=60), 0.0, jitter=lambda low, high: 0.0)
    schedule.hurry(10.0)
    assert schedule.pause(9.0) == 0.0
    assert schedule.pause(11.0) is None
    schedule.hurry(100.0)
    assert schedule.pause(11.0) is None


def test_the_statuses_that_may_pass() -> None:
    assert [status for status in range(300, 600) if may_pass(status)] == [404, 408, 425, 429, *range(500, 600)]


def test_a_large_event_may_take_longer() -> None:
    assert DeliveryPolicy().answer_seconds(0) == 10.0
    assert DeliveryPolicy().answer_seconds(64 * 1024 * 1024) == 74.0
