"""What an author of an adapter or executor needs to prove it: conformance suites, and the parts they are made of.

::

    class TestAcme(AdapterConformance):
        adapter_class = AcmeAdapter

        @pytest.fixture
        def deployment(self, tmp_path):
            with AcmeDeployment(tmp_path) as deployment:
                yield deployment

pytest is needed here and nowhere else in Wove. Every name is resolved on first use: a worker that executes one of
`wove.testing.tasks` needs no pytest.
"""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove.testing.adapter_conformance import AdapterConformance as AdapterConformance
    from wove.testing.board import Board as Board
    from wove.testing.board import Visit as Visit
    from wove.testing.deployment import Deployment as Deployment
    from wove.testing.deployment import WorkerProcess as WorkerProcess
    from wove.testing.executor_conformance import ExecutorConformance as ExecutorConformance
    from wove.testing.inline import FaultyAdapter as FaultyAdapter
    from wove.testing.inline import InlineAdapter as InlineAdapter
    from wove.testing.inline import InlineBackend as InlineBackend
    from wove.testing.proxy import Fault as Fault
    from wove.testing.proxy import FaultProxy as FaultProxy

_HOMES = {
    "AdapterConformance": "wove.testing.adapter_conformance",
    "Board": "wove.testing.board",
    "Deployment": "wove.testing.deployment",
    "ExecutorConformance": "wove.testing.executor_conformance",
    "Fault": "wove.testing.proxy",
    "FaultProxy": "wove.testing.proxy",
    "FaultyAdapter": "wove.testing.inline",
    "InlineAdapter": "wove.testing.inline",
    "InlineBackend": "wove.testing.inline",
    "Visit": "wove.testing.board",
    "WorkerProcess": "wove.testing.deployment",
}

_WITH_ASSERTIONS = ("conformance", "value_scenarios", "fault_scenarios", "queue_scenarios", "event_scenarios")
# Their assertions shall explain themselves as those of any test do, so pytest has to rewrite them when it loads them.
_SUITES = {"wove.testing.adapter_conformance", "wove.testing.executor_conformance"}
_REWRITTEN = (*_SUITES, *(f"wove.testing.{name}" for name in _WITH_ASSERTIONS))

__all__ = [*_HOMES]  # noqa: PLE0604
_resolve, __dir__ = lazy_names(globals(), _HOMES)


def __getattr__(name: str) -> object:
    if _HOMES.get(name) in _SUITES:
        import pytest

        pytest.register_assert_rewrite(*_REWRITTEN)
    return _resolve(name)
