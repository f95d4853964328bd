"""`AdapterConformance`: every scenario that a backend adapter has to pass."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from wove.environment.backend import BackendAdapterEnvironmentExecutor
from wove.integrations.base import BackendAdapter
from wove.testing import tasks
from wove.testing.deployment import Deployment
from wove.testing.event_scenarios import EventScenarios
from wove.testing.executor_conformance import ExecutorConformance
from wove.testing.outcomes import scenario
from wove.testing.queue_scenarios import QueueScenarios
from wove.testing.stage import Stage

_CLAIM_LIMIT = 4096


class AdapterConformance(EventScenarios, QueueScenarios, ExecutorConformance):
    """The scenarios for a backend adapter. Subclass it in a test module::

        class TestAcme(AdapterConformance):
            adapter_class = AcmeAdapter

            @pytest.fixture
            def deployment(self, tmp_path):
                with AcmeDeployment(tmp_path) as deployment:
                    yield deployment

    The adapter's own ``capabilities`` choose the scenarios, and its ``limitations`` explain what is missing.

    Attributes:
        adapter_class: the adapter under test.
    """

    kit: ClassVar[str] = "adapter"
    adapter_class: ClassVar[type[BackendAdapter]]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        adapter = cls.__dict__.get("adapter_class")
        if adapter is None:
            return
        if "capabilities" not in cls.__dict__:
            cls.capabilities = adapter.capabilities | {"crosses_boundary"}
        if "limitations" not in cls.__dict__:
            cls.limitations = adapter.limitations

    def altered(self, changes: Mapping[str, Any]) -> BackendAdapterEnvironmentExecutor:
        """Return an executor whose adapter is the one under test with other attributes and methods."""
        adapter = type(f"Altered{self.adapter_class.__name__}", (self.adapter_class,), dict(changes))
        return BackendAdapterEnvironmentExecutor(self.subject, adapter_class=adapter)

    def posting(self) -> BackendAdapterEnvironmentExecutor | None:
        """Return an executor whose workers post every outcome; None where the adapter's always do."""
        return self.altered({"carries_outcomes": False}) if self.adapter_class.carries_outcomes else None

    @scenario("20 MB argument through a 4 kB limit", needs="max_argument_20mb")
    def test_a_large_argument_stays_with_the_receiver_until_it_is_claimed(
        self, deployment: Deployment, stage: Stage
    ) -> None:
        sizes: list[int] = []
        submit = self.adapter_class.submit

        async def measured(adapter: BackendAdapter, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            sizes.append(len(json.dumps(payload)))
            return await submit(adapter, payload, frame)

        stage.configure(self.altered({"max_payload_bytes": _CLAIM_LIMIT, "submit": measured}))
        blob = tasks.make_blob(20_000_000)
        assert stage.call(tasks.digest, blob=blob) == hashlib.sha256(blob).hexdigest()
        assert len(sizes) == 1
        assert sizes[0] <= _CLAIM_LIMIT

    @scenario("a payload submitted twice runs once", needs="deduplicate")
    def test_a_payload_that_is_submitted_twice_runs_once(self, deployment: Deployment, stage: Stage) -> None:
        submit = self.adapter_class.submit

        async def twice(adapter: BackendAdapter, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            handle = await submit(adapter, payload, frame)
            await submit(adapter, payload, frame)
            return handle

        stage.configure(self.altered({"submit": twice}))
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="twice")
        stage.board.wait_for("twice", seconds=self.step_seconds)
        stage.board.release("twice")
        assert running.result(self.step_seconds) == "released"
        stage.configure()
        self.assert_works(stage)
        assert len(stage.board.visits("twice")) == 1
