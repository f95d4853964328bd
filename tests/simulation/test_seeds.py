"""A thousand worlds, each decided by its seed: whatever goes wrong in them, no promise is broken.

A failure prints the seed. ``WOVE_SIMULATION_SEED=17 pytest tests/simulation/test_seeds.py`` runs that one alone, and
``WOVE_SIMULATION_SEEDS=10000`` more of them than usual.
"""

import os
from collections.abc import Callable

import pytest

from tests.simulation.backend import BackendFaults
from tests.simulation.network import NetworkFaults
from tests.simulation.world import Plan, World

SEEDS = int(os.environ.get("WOVE_SIMULATION_SEEDS", "1000"))
ONLY = os.environ.get("WOVE_SIMULATION_SEED")
_BATCH = 50


def stormy() -> Plan:
    """Two requests in five meet a fault; nothing else does."""
    return Plan(network=NetworkFaults(rate=0.4), timeouts=False, heartbeats=False)


def deadly() -> Plan:
    """Processes are killed, jobs lost, repeated and delivered again."""
    return Plan(backend=BackendFaults(kill=0.3, redeliver=0.5, twice=0.2, lose=0.05, forget=0.05))


def chaotic() -> Plan:
    """Everything at once, and somebody posts forged events."""
    return Plan(
        network=NetworkFaults(rate=0.2, outage=(6.0, 14.0)),
        backend=BackendFaults(
            refuse=0.05, hang=0.03, lose=0.05, forget=0.05, twice=0.2, kill=0.2, redeliver=0.5, skew=0.2
        ),
        cancels=0.2,
        failures=0.2,
        attacks=3,
    )


def carried() -> Plan:
    """As `stormy`, where the backend carries outcomes back: some late, some told of twice."""
    return Plan(
        network=NetworkFaults(rate=0.4),
        backend=BackendFaults(late=0.2, repeat=0.5),
        timeouts=False,
        heartbeats=False,
        carries=True,
    )


def carried_in_chaos() -> Plan:
    """As `chaotic`, where the backend carries outcomes back: some are lost, late, told of twice or forged."""
    return Plan(
        network=NetworkFaults(rate=0.2, outage=(6.0, 14.0)),
        backend=BackendFaults(
            refuse=0.05,
            hang=0.03,
            lose=0.05,
            forget=0.05,
            kill=0.2,
            skew=0.2,
            drop=0.1,
            forge=0.1,
            repeat=0.5,
            late=0.3,
        ),
        cancels=0.2,
        failures=0.2,
        attacks=3,
        carries=True,
    )


def batches(share: float) -> list[range]:
    """Return the seeds of a kind of world, in batches."""
    if ONLY is not None:
        return [range(int(ONLY), int(ONLY) + 1)]
    count = int(SEEDS * share)
    return [range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]


def assert_no_promise_is_broken(plan: Callable[[], Plan], seeds: range) -> None:
    """Run worlds until one of them breaks a promise, and name its seed."""
    for seed in seeds:
        broken = World(seed, plan()).run()
        assert not broken, f"seed {seed} of the {plan.__name__} worlds:\n" + "\n".join(broken)


@pytest.mark.parametrize("plan", [stormy, carried])
@pytest.mark.parametrize("seeds", batches(0.3), ids=str)
def test_in_a_storm_every_task_gets_its_own_result(seeds: range, plan: Callable[[], Plan]) -> None:
    for seed in seeds:
        world = World(seed, plan())
        broken = world.run()
        wrong = [ticket for ticket in world.history.tickets.values() if ticket.value is None]
        assert not broken, f"seed {seed}:\n" + "\n".join(broken)
        assert not wrong, f"seed {seed}: {[(ticket.number, ticket.error) for ticket in wrong]}"


@pytest.mark.parametrize("seeds", batches(0.3), ids=str)
def test_dying_workers_break_no_promise(seeds: range) -> None:
    assert_no_promise_is_broken(deadly, seeds)


@pytest.mark.parametrize("seeds", batches(0.4), ids=str)
def test_chaos_breaks_no_promise(seeds: range) -> None:
    assert_no_promise_is_broken(chaotic, seeds)


@pytest.mark.parametrize("seeds", batches(0.4), ids=str)
def test_a_backend_that_carries_outcomes_breaks_no_promise(seeds: range) -> None:
    assert_no_promise_is_broken(carried_in_chaos, seeds)
