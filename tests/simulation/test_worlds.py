"""The simulation itself: it repeats itself, it can fail, and its checker notices what must not happen."""

from dataclasses import replace
from unittest import mock

import pytest

from tests.simulation.backend import BackendFaults
from tests.simulation.history import History, Ticket
from tests.simulation.network import NetworkFaults
from tests.simulation.test_seeds import chaotic
from tests.simulation.virtual_loop import Stuck, VirtualLoop, sleep
from tests.simulation.world import Plan, World
from wove.integrations.base import JobState


def ends_of(world: World) -> list[tuple[int, float | None, bool]]:
    """What became of each task, and when."""
    return [(ticket.number, ticket.ended, ticket.value is not None) for ticket in world.history.tickets.values()]


def test_a_world_without_faults_has_no_failures() -> None:
    world = World(1, Plan(weaves=5, timeouts=False))
    assert world.run() == []
    assert all(ticket.value is not None for ticket in world.history.tickets.values())


def test_the_same_seed_makes_the_same_world() -> None:
    first, second = World(7, chaotic()), World(7, chaotic())
    assert first.run() == second.run() == []
    assert ends_of(first) == ends_of(second)


def test_different_seeds_make_different_worlds() -> None:
    first, second = World(7, chaotic()), World(8, chaotic())
    first.run()
    second.run()
    assert ends_of(first) != ends_of(second)


def test_minutes_of_trouble_take_no_time() -> None:
    world = World(3, Plan(weaves=1, network=NetworkFaults(outage=(0.0, 300.0)), timeouts=False, heartbeats=False))
    assert world.run() == []
    assert max(ticket.ended or 0.0 for ticket in world.history.tickets.values()) > 300.0


def test_a_receiver_that_checks_no_signatures_is_found_out() -> None:
    with mock.patch("wove.backend.arrivals.verify_event"):
        found = [broken for seed in range(10) for broken in World(seed, Plan(weaves=5, attacks=20)).run()]
    assert any(broken.startswith("I4") for broken in found)


def test_a_forged_outcome_that_nobody_checks_is_found_out() -> None:
    plan = Plan(weaves=5, backend=BackendFaults(forge=0.5), carries=True)
    with mock.patch("wove.backend.arrivals.verify_event"):
        found = [broken for seed in range(5) for broken in World(seed, plan).run()]
    assert any(broken.startswith("I4") for broken in found)


def test_outcomes_that_are_carried_back_are_not_posted() -> None:
    world = World(1, Plan(weaves=5, timeouts=False, carries=True))
    assert world.run() == []
    assert all(ticket.value is not None for ticket in world.history.tickets.values())
    assert "task_result" not in world.history.posted


def test_an_owner_that_misses_no_heartbeats_is_found_out() -> None:
    with (
        mock.patch("wove.environment.runs.Run.silent_due", None),
        mock.patch("tests.simulation.backend.Backend.state", return_value=JobState("running")),
        pytest.raises(Stuck),
    ):
        World(1, Plan(backend=BackendFaults(kill=1.0), timeouts=False)).run()


def test_a_worker_that_never_gives_up_is_found_out() -> None:
    with mock.patch("tests.simulation.backend._LONGEST_ALONE", 10.0):
        found = [broken for seed in range(10) for broken in World(seed, chaotic()).run()]
    assert any("after its owner had gone" in broken for broken in found)


def test_a_job_that_nobody_misses_is_found_out() -> None:
    world = World(1, Plan(backend=BackendFaults(forget=1.0), timeouts=False, heartbeats=False))
    with pytest.raises(Stuck):
        world.run()


@pytest.mark.parametrize(
    ("promise", "change"),
    [
        ("I2: ticket 0 never ended", {"ended": None}),
        ("I2: ticket 0 took 100.0 s", {"ended": 100.0}),
        ("I3: ticket 0 with the runs ['own'] got (1, 'own')", {"value": (1, "own")}),
        ("I3: ticket 0 with the runs ['own'] got (0, 'foreign')", {"value": (0, "foreign")}),
        ("I3: ticket 0 has a value, but its task raises", {"outcome": "raise"}),
    ],
)
def test_the_checker_knows_each_broken_promise(promise: str, change: dict[str, object]) -> None:
    history = History()
    history.executed("own")
    history.tickets[0] = Ticket(0, began=0.0, limit=10.0, outcome="return", ended=5.0, runs=["own"], value=(0, "own"))
    assert history.violations() == []
    history.tickets[0] = replace(history.tickets[0], **change)  # type: ignore[arg-type]
    assert any(promise in found for found in history.violations())


def test_two_ends_and_an_event_after_the_end_are_noticed() -> None:
    history = History()
    for kind in ("task_started", "task_result", "task_error"):
        history.wove_event_received("run", kind)
    assert [found[:2] for found in history.violations()] == ["I1", "I6"]


def test_a_loop_on_which_everybody_waits_says_so() -> None:
    loop = VirtualLoop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_strand_is_the_only_one_that_may_sleep() -> None:
    with pytest.raises(AttributeError):
        sleep(1.0)
