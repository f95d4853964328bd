"""The conformance kit against the reference adapters: a backend in this process, and one that treats its jobs badly."""

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import pytest

from wove import BackendAdapterEnvironmentExecutor
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError
from wove.testing import AdapterConformance, Deployment, FaultyAdapter, InlineAdapter, InlineBackend, tasks
from wove.testing.stage import Stage

_HERE = "tasks run on threads of the weave's own process"


class InlineDeployment(Deployment):
    """An inline backend of its own for each scenario."""

    cannot = dict.fromkeys(["kill_worker", "terminate_worker", "kill_process", "pause_process"], _HERE)

    def __init__(self, adapter_class: type[InlineAdapter] = InlineAdapter, **config: Any) -> None:
        self._adapter_class = adapter_class
        self._config = config
        self.backend = InlineBackend(workers=8)

    def environment(self) -> dict[str, Any]:
        executor = BackendAdapterEnvironmentExecutor("inline", adapter_class=self._adapter_class)
        return {"executor": executor, "executor_config": {"backend": self.backend, **self._config}}

    def ensure_worker(self) -> None:
        self.backend.resume()

    def stop_workers(self) -> None:
        self.backend.pause()

    def take_backend_down(self) -> None:
        self.backend.reachable = False

    def bring_backend_up(self) -> None:
        self.backend.reachable = True

    def leftovers(self) -> Collection[str]:
        return self.backend.unfinished()


class TestInline(AdapterConformance):
    """The reference."""

    adapter_class = InlineAdapter

    @pytest.fixture
    def deployment(self) -> InlineDeployment:
        return InlineDeployment()


class TestMistreatedInline(AdapterConformance):
    """A backend that delays, repeats and reorders jobs still keeps every promise."""

    adapter_class = FaultyAdapter
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
