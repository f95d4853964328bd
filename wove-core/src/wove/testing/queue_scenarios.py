"""Scenarios about a backend's queue and its jobs: those that wait, those that vanish, what stays behind."""

import time

from wove.errors import DeliveryError, DeliveryTimeoutError
from wove.testing import tasks
from wove.testing.conformance import Conformance
from wove.testing.deployment import Deployment
from wove.testing.outcomes import scenario
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until


class QueueScenarios(Conformance):
    """What only a backend can get wrong that keeps jobs for a worker."""

    @scenario("cancel a queued task: it never runs", needs="queues_without_worker", hooks="stop_workers")
    def test_a_task_that_was_given_up_in_the_queue_never_runs(self, deployment: Deployment, stage: Stage) -> None:
        deployment.stop_workers()
        running = stage.begin(tasks.attend, board=stage.board.address, label="unwanted")
        stage.journal.wait_for_submission("attend", seconds=self.step_seconds)
        running.abandon()
        assert running.wait(self.step_seconds), "a cancelled weave ends"
        deployment.ensure_worker()
        self.assert_works(stage)
        assert stage.board.visits("unwanted") == []

    @scenario(
        "cancel a queued task: its job is removed",
        needs="queues_without_worker cancel_queued",
        hooks="stop_workers leftovers",
    )
    def test_the_job_of_a_task_that_was_given_up_is_removed(self, deployment: Deployment, stage: Stage) -> None:
        before = set(deployment.leftovers())
        deployment.stop_workers()
        running = stage.begin(tasks.attend, board=stage.board.address, label="unwanted")
        stage.journal.wait_for_submission("attend", seconds=self.step_seconds)
        assert set(deployment.leftovers()) - before, "the job is in the backend"
        running.abandon()
        self._assert_clean(deployment, before)
        deployment.ensure_worker()

    @scenario("no worker, delivery_timeout", needs="queues_without_worker", hooks="stop_workers")
    def test_a_task_that_nobody_takes_ends_with_a_timeout(self, deployment: Deployment, stage: Stage) -> None:
        self.assert_works(stage)
        deployment.stop_workers()
        started = time.monotonic()
        running = stage.begin(tasks.add, {"delivery_timeout": self.delivery_timeout}, left=1, right=2)
        error = running.failure(self.delivery_timeout + self.step_seconds)
        assert isinstance(error, DeliveryTimeoutError), repr(error)
        assert time.monotonic() - started < self.delivery_timeout + self.prompt_seconds
        deployment.ensure_worker()
        self.assert_works(stage)

    @scenario("queued longer than a heartbeat: not killed", needs="queues_without_worker", hooks="stop_workers")
    def test_a_queued_task_needs_no_heartbeats(self, deployment: Deployment, stage: Stage) -> None:
        deployment.stop_workers()
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.add, options, left=1, right=2)
        stage.journal.wait_for_submission("add", seconds=self.step_seconds)
        # That time passes is what this scenario is about.
        assert not running.wait(1.5 * self.heartbeat_seconds), running.failure(0.1)
        deployment.ensure_worker()
        assert running.result(self.step_seconds) == 3

    @scenario("two weaves at once on a fixed port")
    def test_two_weaves_share_a_fixed_port(self, deployment: Deployment, stage: Stage) -> None:
        stage.configure(callback_port=free_port(deployment.host))
        self.test_two_weaves_at_once_keep_their_values_apart.__wrapped__(self, stage)  # type: ignore[attr-defined]

    @scenario("job died without any event", needs="detect_lost_job separate_process")
    def test_a_job_that_ends_without_an_event_is_reported(self, deployment: Deployment, stage: Stage) -> None:
        running = stage.begin(tasks.vanish, board=stage.board.address, label="vanished")
        stage.board.release("vanished")
        visit = stage.board.wait_for("vanished", seconds=self.step_seconds)[0]
        stage.board.wait_for_end(visit, seconds=self.step_seconds)
        error = running.failure(self.dead_job_seconds)
        assert isinstance(error, DeliveryError), repr(error)
        assert error.state is not None, "the error carries what the backend says"
        deployment.ensure_worker()
        self.assert_works(stage)

    @scenario("job died without any event, heartbeats on", needs="separate_process")
    def test_a_job_that_ends_without_an_event_misses_its_heartbeats(self, deployment: Deployment, stage: Stage) -> None:
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.vanish, options, board=stage.board.address, label="vanished")
        stage.wait_until_known(tasks.vanish, "vanished")
        stage.board.release("vanished")
        error = running.failure(max(self.dead_job_seconds, self.heartbeat_seconds + self.prompt_seconds))
        assert isinstance(error, DeliveryError), repr(error)
        deployment.ensure_worker()
        self.assert_works(stage)

    @scenario("nothing is left in the backend", hooks="leftovers")
    def test_nothing_is_left_in_the_backend(self, deployment: Deployment, stage: Stage) -> None:
        self.assert_works(stage)
        before = set(deployment.leftovers())
        stage.begin_map(tasks.double, range(10)).result(self.step_seconds)
        stage.begin(tasks.fail, message="as planned").failure(self.step_seconds)
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        given_up = stage.begin(tasks.wait_at_later, options, board=stage.board.address, label="given up")
        stage.board.wait_for("given up", seconds=self.step_seconds)
        given_up.abandon()
        stage.board.release("given up")
        assert given_up.wait(self.step_seconds)
        self._assert_clean(deployment, before)

    def _assert_clean(self, deployment: Deployment, before: set[str]) -> None:
        poll_until(
            lambda: set(deployment.leftovers()) <= before,
            seconds=self.step_seconds,
            what=f"the backend holds nothing of ours any more; it holds {sorted(deployment.leftovers())}",
        )
