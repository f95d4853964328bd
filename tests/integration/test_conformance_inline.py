"""The conformance kit against the reference adapters: a backend in this process, and one that treats its jobs badly."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.support.inline import InlineDeployment
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError
from wove.testing import AdapterConformance, FaultyAdapter, InlineAdapter, tasks
from wove.testing.stage import Stage


class TestInline(AdapterConformance):
    """The reference."""

    adapter_class = InlineAdapter

    @pytest.fixture
    def deployment(self) -> InlineDeployment:
        return InlineDeployment()


class TestMistreatedInline(AdapterConformance):
    """A backend that delays, repeats and reorders jobs still keeps every promise."""

    adapter_class = FaultyAdapter
    subject = "inline (mistreating its jobs)"
    treatments: ClassVar[tuple[str, ...]] = ("duplicate", "delay", "reorder", "run", "duplicate")

    @pytest.fixture
    def deployment(self) -> InlineDeployment:
        return InlineDeployment(FaultyAdapter, treatments=self.treatments)


# What a backend that forgets or kills a job leads to.


@pytest.fixture
def mistreated(request: pytest.FixtureRequest) -> Iterator[Stage]:
    deployment = InlineDeployment(FaultyAdapter, treatments=(request.param,))
    with Stage(deployment, seconds=30.0) as stage:
        yield stage


@pytest.mark.parametrize("mistreated", ["drop"], indirect=True)
def test_a_job_that_the_backend_forgets_runs_into_its_delivery_timeout(mistreated: Stage) -> None:
    error = mistreated.begin(tasks.add, {"delivery_timeout": 0.5}, left=1, right=2).failure(5.0)
    assert isinstance(error, DeliveryTimeoutError)
    assert "no worker has started it" in str(error)


@pytest.mark.parametrize("mistreated", ["lose"], indirect=True)
def test_a_job_that_the_backend_has_lost_is_an_orphan(mistreated: Stage) -> None:
    error = mistreated.begin(tasks.add, left=1, right=2).failure(15.0)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "gone"


@pytest.mark.parametrize("mistreated", ["die"], indirect=True)
def test_a_job_whose_process_died_says_so(mistreated: Stage) -> None:
    error = mistreated.begin(tasks.add, left=1, right=2).failure(15.0)
    assert isinstance(error, DeliveryOrphanedError)
    assert (error.state, error.exit_code, error.reason) == ("failed", 137, "Killed")


def test_a_retry_after_a_lost_job_gets_the_result() -> None:
    with Stage(InlineDeployment(FaultyAdapter, treatments=("die", "run")), seconds=30.0) as stage:
        assert stage.call(tasks.add, {"retries": 1}, left=1, right=2) == 3


def test_a_lost_job_is_queued_again_where_the_policy_says_so() -> None:
    with Stage(InlineDeployment(FaultyAdapter, treatments=("lose", "run")), seconds=30.0) as stage:
        assert stage.call(tasks.add, {"delivery_orphan_policy": "requeue"}, left=1, right=2) == 3
