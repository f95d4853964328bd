"""What both conformance suites share: the timings that an author may widen, the fixtures, and ways to judge an end."""

import time
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from wove.errors import DeliveryError, TaskCancelledError
from wove.integrations.base import CAPABILITIES
from wove.testing.deployment import Deployment
from wove.testing.outcomes import KIT_CAPABILITIES
from wove.testing.stage import Running, Stage


class Conformance:
    """Base of the suites. A subclass has a fixture ``deployment`` and may widen the timings.

    Attributes:
        kit: which suite this is.
        subject: the name of what is tested, in recorded outcomes; derived from the class's name if not set.
        capabilities: what the subject can do, out of `wove.integrations.base.CAPABILITIES`.
        limitations: for each other one, a sentence that says why not.
        step_seconds: within which any single step ends, such as a small task; beyond it counts as hanging.
        prompt_seconds: within which Wove reports what it knows, after a timeout has passed for example.
        heartbeat_seconds: the ``delivery_heartbeat_seconds`` of scenarios about heartbeats.
        delivery_timeout: the ``delivery_timeout`` of scenarios about it, in seconds.
        cancel_seconds: within which a running task stops after its weave has given it up.
        dead_job_seconds: within which the backend reports a job that died.
        fail_fast_seconds: within which submitting to a backend that is down fails.
        stop_seconds: within which a worker reacts to SIGTERM, unless it waits for its tasks.
        outage_seconds: how long the callback receiver is unreachable.
        exit_seconds: within which the interpreter exits after its last statement.
        blocked_seconds: the longest that an event loop may be blocked.
    """

    kit: ClassVar[str] = ""
    subject: ClassVar[str] = ""
    capabilities: ClassVar[frozenset[str]] = frozenset()
    limitations: ClassVar[Mapping[str, str]] = {}

    step_seconds: ClassVar[float] = 30.0
    prompt_seconds: ClassVar[float] = 3.0
    heartbeat_seconds: ClassVar[float] = 2.0
    delivery_timeout: ClassVar[float] = 2.0
    cancel_seconds: ClassVar[float] = 5.0
    dead_job_seconds: ClassVar[float] = 15.0
    fail_fast_seconds: ClassVar[float] = 10.0
    stop_seconds: ClassVar[float] = 5.0
    outage_seconds: ClassVar[float] = 5.0
    exit_seconds: ClassVar[float] = 2.0
    blocked_seconds: ClassVar[float] = 0.05

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.get("subject"):
            cls.subject = cls.__name__.removeprefix("Test").removesuffix("Conformance").lower()

    @pytest.fixture
    def deployment(self) -> Deployment:
        """Yield the backend under test. Every suite overrides this."""
        pytest.fail(f"{type(self).__name__} needs a fixture 'deployment' that yields a Deployment.", pytrace=False)

    @pytest.fixture
    def stage(self, deployment: Deployment) -> Iterator[Stage]:
        """A worker is up and Wove is configured for the deployment."""
        deployment.ensure_worker()
        with Stage(deployment, seconds=self.step_seconds) as stage:
            yield stage

    def test_every_capability_is_declared_or_explained(self) -> None:
        known = KIT_CAPABILITIES.keys()
        assert self.capabilities <= known, f"unknown: {sorted(self.capabilities - known)}; known: {sorted(known)}"
        unexplained = CAPABILITIES.keys() - self.capabilities - self.limitations.keys()
        assert not unexplained, f"declare these in capabilities, or explain them in limitations: {sorted(unexplained)}"
        both = self.capabilities & self.limitations.keys()
        assert not both, f"declared and explained away at once: {sorted(both)}"

    # --- judging how a weave ended ---

    def lost(self, running: Running, stage: Stage, *, label: str, seconds: float) -> None:
        """Assert that a weave whose job died ends in time: with a delivery error, or, where the backend has started the
        job again, with the result of that.
        """
        deadline = time.monotonic() + seconds
        while not running.wait(0.05) and time.monotonic() < deadline:
            if len(stage.board.visits(label)) > 1:
                stage.board.release(label)
                running.result(self.step_seconds)
                return
        error = running.failure(0.1)
        assert isinstance(error, DeliveryError | TaskCancelledError), f"no delivery error, but {error!r}"

    def assert_works(self, stage: Stage) -> None:
        """Assert that the next task runs as if nothing had happened."""
        from wove.testing import tasks

        assert stage.call(tasks.add, left=40, right=2) == 42
