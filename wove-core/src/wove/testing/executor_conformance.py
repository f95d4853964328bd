"""`ExecutorConformance`: every scenario that holds for any executor."""

from typing import ClassVar

from wove.testing.fault_scenarios import FaultScenarios
from wove.testing.value_scenarios import ValueScenarios


class ExecutorConformance(FaultScenarios, ValueScenarios):
    """The scenarios for an executor. Subclass it in a test module and override the fixture ``deployment``::

        class TestCarrierPigeons(ExecutorConformance):
            capabilities = frozenset({"crosses_boundary", "separate_process", "max_argument_20mb"})
            limitations = {"cancel_running_sync": "a pigeon that has left cannot be called back", ...}

            @pytest.fixture
            def deployment(self):
                with PigeonDeployment() as deployment:
                    yield deployment

    ``capabilities`` choose the scenarios; whatever else is in `wove.integrations.base.CAPABILITIES` needs a sentence in
    ``limitations``. ``crosses_boundary`` says that tasks and their values are serialized, as they are everywhere but in
    the weave's own process.
    """

    kit: ClassVar[str] = "executor"
