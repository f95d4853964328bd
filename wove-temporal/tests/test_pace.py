"""How many jobs are started at a time, without a server."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_time import in_virtual_time, now
from wove_temporal.pace import Concurrency, Pace


def after(concurrency: Concurrency, answers: int, *, seconds: float, since: float = 0.0) -> int:
    """Return the limit after so many answers that took so long, one after the other."""
    for number in range(answers):
        concurrency.answered(seconds, now=since + number * seconds)
    return concurrency.limit


def test_the_first_questions_are_few() -> None:
    assert Concurrency(fewest=4).limit == 4


def test_a_server_that_answers_as_fast_as_ever_is_asked_for_more_and_more() -> None:
    assert after(Concurrency(fewest=4, most=64), 60, seconds=0.05) == 64


def test_a_server_that_takes_its_time_is_asked_for_less() -> None:
    concurrency = Concurrency(fewest=4, most=64)
    after(concurrency, 60, seconds=0.05)
    assert after(concurrency, 100, seconds=0.2, since=3.0) == 4


def test_one_slow_answer_changes_little() -> None:
    concurrency = Concurrency(fewest=4, most=64)
    after(concurrency, 60, seconds=0.05)
    after(concurrency, 1, seconds=0.2, since=3.0)
    assert after(concurrency, 3, seconds=0.05, since=3.2) >= 62


def test_a_server_that_has_become_distant_is_asked_for_more_again() -> None:
    concurrency = Concurrency(fewest=4, most=64)
    after(concurrency, 1, seconds=0.01)
    assert after(concurrency, 50, seconds=0.2) == 4
    after(concurrency, 1, seconds=0.2, since=31.0)
    assert after(concurrency, 60, seconds=0.2, since=62.0) == 64


def test_nobody_waits_for_others_to_learn_that_the_server_is_away() -> None:
    concurrency = Concurrency(fewest=4, most=64)
    assert (concurrency.unanswered(), concurrency.limit) == (60, 64)


@given(st.lists(st.floats(0.0, 100.0) | st.none(), max_size=200))
def test_the_limit_stays_within_its_bounds_and_changes_as_is_said(answers: list[float | None]) -> None:
    concurrency = Concurrency(fewest=2, most=8)
    now = 0.0
    for seconds in answers:
        before, now = concurrency.limit, now + (seconds or 0.0)
        change = concurrency.unanswered() if seconds is None else concurrency.answered(seconds, now=now)
        assert concurrency.limit == before + change
        assert 2 <= concurrency.limit <= 8


class Server:
    """Answers each question after some seconds; `at_once` is how many it has been asked at a time at the most."""

    def __init__(self, pace: Pace, *, seconds: float = 0.5, error: Exception | None = None) -> None:
        self._pace = pace
        self._seconds = seconds
        self._error = error
        self._under_way = 0
        self.at_once = 0
        self.asked: list[int] = []

    async def ask(self, number: int) -> None:
        async with self._pace.place():
            self.asked.append(number)
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
            await asyncio.sleep(self._seconds)
            self._under_way -= 1
            if self._error is not None:
                raise self._error

    async def ask_for(self, questions: int) -> list[BaseException | None]:
        return await asyncio.gather(*(self.ask(number) for number in range(questions)), return_exceptions=True)


@in_virtual_time
async def test_as_many_questions_are_under_way_as_the_limit_says() -> None:
    server = Server(Pace(Concurrency(fewest=3, most=3)))
    await server.ask_for(10)
    assert (server.at_once, server.asked) == (3, list(range(10)))


@in_virtual_time
async def test_a_higher_limit_lets_those_who_wait_begin() -> None:
    server = Server(Pace(Concurrency(fewest=2, most=5)))
    await server.ask_for(20)
    assert server.at_once == 5


@in_virtual_time
async def test_a_question_that_fails_gives_its_place_back() -> None:
    server = Server(Pace(Concurrency(fewest=2, most=8)), error=ValueError("wrong"))
    assert [str(outcome) for outcome in await server.ask_for(20)] == ["wrong"] * 20
    assert server.at_once == 2


@in_virtual_time
async def test_a_server_that_does_not_answer_is_asked_by_all_who_wait() -> None:
    server = Server(Pace(Concurrency(fewest=2, most=64)), seconds=30.0, error=TimeoutError("no answer"))
    await server.ask_for(60)
    assert now() == pytest.approx(31.0)


@in_virtual_time
async def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    server = Server(Pace(Concurrency(fewest=1, most=1)))
    asking = [asyncio.create_task(server.ask(number)) for number in range(3)]
    await asyncio.sleep(0.2)
    asking[1].cancel()
    await asyncio.wait(asking)
    assert server.asked == [0, 2]
