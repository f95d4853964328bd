"""Scenarios about what goes wrong on the way: dead processes, stopped workers, cancelled weaves, an absent backend."""

import time
from collections.abc import Mapping

import wove
from wove.errors import DeliveryError, DeliveryTimeoutError, TaskCancelledError
from wove.testing import tasks
from wove.testing.conformance import Conformance
from wove.testing.deployment import Deployment
from wove.testing.exit_probe import probe_exit
from wove.testing.lateness import LatenessOfTheBackground
from wove.testing.outcomes import scenario
from wove.testing.stage import Stage

# How often loops may be late before it is no accident any more.
_ATTEMPTS = 3


class FaultScenarios(Conformance):
    """Tasks that do not end by themselves."""

    # --- processes that die ---

    @scenario("executing process killed, heartbeats on", needs="separate_process", hooks="kill_process")
    def test_a_killed_process_is_noticed_by_missing_heartbeats(self, deployment: Deployment, stage: Stage) -> None:
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="doomed")
        visit = stage.wait_until_known(tasks.wait_at, "doomed")
        deployment.kill_process(visit.pid)
        self.lost(running, stage, label="doomed", seconds=self.heartbeat_seconds + self.prompt_seconds)
        deployment.ensure_worker()
        self.assert_works(stage)

    @scenario("executing process killed", needs="detect_dead_process", hooks="kill_process")
    def test_a_killed_process_is_reported_by_the_backend(self, deployment: Deployment, stage: Stage) -> None:
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
        visit = stage.wait_until_known(tasks.wait_at, "doomed")
        deployment.kill_process(visit.pid)
        self.lost(running, stage, label="doomed", seconds=self.dead_job_seconds)

    @scenario("whole worker killed, heartbeats on", needs="separate_process", hooks="kill_worker")
    def test_a_killed_worker_is_noticed_by_missing_heartbeats(self, deployment: Deployment, stage: Stage) -> None:
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="doomed")
        stage.wait_until_known(tasks.wait_at, "doomed")
        deployment.kill_worker()
        self.lost(running, stage, label="doomed", seconds=self.heartbeat_seconds + self.prompt_seconds)
        deployment.ensure_worker()
        self.assert_works(stage)

    @scenario("whole worker killed", needs="detect_dead_worker", hooks="kill_worker")
    def test_a_killed_worker_is_reported_by_the_backend(self, deployment: Deployment, stage: Stage) -> None:
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
        stage.wait_until_known(tasks.wait_at, "doomed")
        deployment.kill_worker()
        self.lost(running, stage, label="doomed", seconds=self.dead_job_seconds)

    @scenario("crash, then a retry", needs="separate_process", hooks="kill_process")
    def test_a_retry_after_a_crash_gets_a_result(self, deployment: Deployment, stage: Stage) -> None:
        options = {"retries": 1, "delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="again")
        visit = stage.wait_until_known(tasks.wait_at, "again")
        deployment.kill_process(visit.pid)
        deployment.ensure_worker()
        visits = stage.board.wait_for("again", count=2, seconds=self.dead_job_seconds + self.step_seconds)
        stage.board.release("again")
        assert running.result(self.step_seconds) == "released"
        assert visits[1].pid != visit.pid

    @scenario("SIGTERM to the worker mid-task", needs="separate_process graceful_stop", hooks="terminate_worker")
    def test_a_terminated_worker_reports_or_finishes_its_task(self, deployment: Deployment, stage: Stage) -> None:
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="evicted")
        stage.board.wait_for("evicted", seconds=self.step_seconds)
        deployment.terminate_worker()
        # A worker may wait for its tasks, so the task goes on if the signal has not ended it by then.
        if not running.wait(self.stop_seconds):
            stage.board.release("evicted")
        try:
            assert running.result(self.step_seconds) == "released"
        except (TaskCancelledError, DeliveryError):
            pass
        deployment.ensure_worker()
        self.assert_works(stage)

    # --- heartbeats ---

    @scenario("long healthy tasks under heartbeats", needs="crosses_boundary")
    def test_healthy_tasks_outlive_many_heartbeats(self, stage: Stage) -> None:
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        for task in (tasks.wait_at, tasks.wait_at_later):
            running = stage.begin(task, options, board=stage.board.address, label=task.__name__)
            stage.board.wait_for(task.__name__, seconds=self.step_seconds)
            # That time passes is what this scenario is about.
            assert not running.wait(2.5 * self.heartbeat_seconds), running.failure(0.1)
            stage.board.release(task.__name__)
            assert running.result(self.step_seconds) == "released"

    @scenario("heartbeats that stop", needs="separate_process", hooks="pause_process")
    def test_a_process_that_falls_silent_is_given_up(self, deployment: Deployment, stage: Stage) -> None:
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="silent")
        visit = stage.wait_until_known(tasks.wait_at, "silent")
        deployment.pause_process(visit.pid)
        try:
            error = running.failure(self.heartbeat_seconds + self.prompt_seconds)
        finally:
            deployment.resume_process(visit.pid)
        assert isinstance(error, DeliveryTimeoutError), repr(error)

    # --- weaves that give up ---

    @scenario("cancel a running synchronous task: it stops", needs="cancel_running_sync")
    def test_a_running_synchronous_task_stops_when_its_weave_is_cancelled(self, stage: Stage) -> None:
        self._assert_stops(stage, label="sync")

    @scenario("cancel a running asynchronous task: it stops", needs="cancel_running_async")
    def test_a_running_coroutine_stops_when_its_weave_is_cancelled(self, stage: Stage) -> None:
        self._assert_stops(stage, label="async")

    def _assert_stops(self, stage: Stage, *, label: str) -> None:
        task = tasks.wait_at if label == "sync" else tasks.wait_at_later
        # Beats are frequent, because the answer to a heartbeat is what stops the tasks of many backends.
        options = {"delivery_heartbeat_seconds": self.heartbeat_seconds}
        running = stage.begin(task, options, board=stage.board.address, label=label)
        (visit,) = stage.board.wait_for(label, seconds=self.step_seconds)
        running.abandon()
        assert running.wait(self.step_seconds), "a cancelled weave ends"
        how = stage.board.wait_for_end(visit, seconds=self.cancel_seconds)
        assert how != "released", "the task was to stop, not to finish"
        self.assert_works(stage)

    @scenario("delivery_timeout on a running task", needs="crosses_boundary")
    def test_a_task_that_takes_too_long_ends_with_a_timeout(self, stage: Stage) -> None:
        options = {"delivery_timeout": self.delivery_timeout}
        started = time.monotonic()
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="slow")
        error = running.failure(self.delivery_timeout + self.step_seconds)
        assert isinstance(error, DeliveryTimeoutError), repr(error)
        assert time.monotonic() - started < self.delivery_timeout + self.prompt_seconds

    # --- a backend that is not there ---

    @scenario("backend down at submit: fails fast, no loop is blocked", hooks="take_backend_down bring_backend_up")
    def test_a_backend_that_went_away_fails_fast(self, deployment: Deployment, stage: Stage) -> None:
        self.assert_works(stage)
        self._assert_fails_fast(deployment, stage)
        self.assert_works(stage)

    @scenario("backend down at start: fails fast, no loop is blocked", hooks="take_backend_down bring_backend_up")
    def test_a_backend_that_never_was_there_fails_fast(self, deployment: Deployment, stage: Stage) -> None:
        # The first weave loads modules, which no one can do without blocking; the sessions are closed afterwards.
        self.assert_works(stage)
        wove.shutdown()
        self._assert_fails_fast(deployment, stage)
        self.assert_works(stage)

    def _assert_fails_fast(self, deployment: Deployment, stage: Stage) -> None:
        deployment.take_backend_down()
        try:
            blocked = [self._blocked(stage)]
            # A thread can be late on a busy machine; what blocks a loop does so every time.
            while blocked[-1] and len(blocked) < _ATTEMPTS:
                blocked.append(self._blocked(stage))
        finally:
            deployment.bring_backend_up()
            deployment.ensure_worker()
        assert not blocked[-1], f"{' and '.join(blocked[-1])} was blocked, for so many seconds: {blocked}"

    def _blocked(self, stage: Stage) -> Mapping[str, float]:
        """Let a task fail at a backend that is down; return which loops were blocked meanwhile, and for how long."""
        with LatenessOfTheBackground() as lateness:
            running = stage.begin_measured(tasks.add, left=1, right=2)
            error = running.failure(self.fail_fast_seconds)
        assert isinstance(error, Exception), repr(error)
        late = {"the weave's loop": running.lateness, "the background loop": lateness.background}
        # What an idle loop suffers at the same time is the machine's doing.
        own = {loop: seconds - lateness.idle for loop, seconds in late.items()}
        return {loop: seconds for loop, seconds in own.items() if seconds >= self.blocked_seconds}

    # --- the end ---

    @scenario("interpreter exits, nothing left: no thread, process, port or file")
    def test_the_interpreter_exits_and_leaves_nothing(self, deployment: Deployment, stage: Stage) -> None:
        self.assert_works(stage)
        found = probe_exit(deployment.environment(), seconds=self.step_seconds + self.exit_seconds)
        assert found.value == 42
        assert found.exit_seconds < self.exit_seconds
        # Where the worker is this process too, its thread and its connection stay as long as it expects more jobs.
        workers = set() if "separate_process" in self.capabilities else {"wove-worker"}
        assert set(found.threads) <= workers, "threads left by wove.shutdown()"
        assert found.descriptors <= len(workers), "more open descriptors after the second weave"
        assert found.processes == [], "processes left"
        assert found.files == [], "files left"
        assert found.ports == [], "ports left"
