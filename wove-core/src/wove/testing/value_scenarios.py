"""Scenarios about what comes back: values, exceptions, and what cannot travel."""

import hashlib
import traceback

import wove
from wove.errors import EnvironmentExecutionError, WoveError
from wove.testing import tasks
from wove.testing.conformance import Conformance
from wove.testing.outcomes import scenario
from wove.testing.stage import ENVIRONMENT, Stage

_LARGE = 20_000_000


class ValueScenarios(Conformance):
    """Tasks that end by themselves."""

    @scenario("synchronous task")
    def test_a_synchronous_task_returns_its_value(self, stage: Stage) -> None:
        assert stage.call(tasks.add, left=1, right=2) == 3

    @scenario("asynchronous task")
    def test_an_asynchronous_task_returns_its_value(self, stage: Stage) -> None:
        assert stage.call(tasks.add_later, left=1, right=2) == 3

    @scenario("synchronous task that uses asyncio.run")
    def test_a_synchronous_task_runs_outside_of_any_event_loop(self, stage: Stage) -> None:
        assert stage.call(tasks.run_asyncio) == "ran"

    @scenario("map over 50 items")
    def test_a_map_returns_its_values_in_order(self, stage: Stage) -> None:
        values = stage.begin_map(tasks.double, range(50)).result(self.step_seconds)
        assert values == [2 * item for item in range(50)]

    @scenario("200 results at once")
    def test_of_two_hundred_results_none_is_lost(self, stage: Stage) -> None:
        values = stage.begin_map(tasks.double, range(200)).result(2 * self.step_seconds)
        assert values == [2 * item for item in range(200)]

    @scenario("task raises; the remote traceback is kept")
    def test_an_exception_arrives_with_its_traceback(self, stage: Stage) -> None:
        error = stage.begin(tasks.fail, message="as planned").failure(self.step_seconds)
        assert type(error) is ValueError
        assert error.args == ("as planned",)
        text = "".join(traceback.format_exception(error))
        assert "in fail" in text
        assert "tasks.py" in text

    @scenario("exception that cannot be rebuilt", needs="crosses_boundary")
    def test_an_exception_that_cannot_be_rebuilt_keeps_its_text(self, stage: Stage) -> None:
        error = stage.begin(tasks.fail_unbuildable).failure(self.step_seconds)
        assert isinstance(error, EnvironmentExecutionError)
        assert "Unbuildable" in str(error)
        assert "no copy of me (code 17)" in str(error)
        assert "in fail_unbuildable" in error.payload["traceback"]
        self.assert_works(stage)

    @scenario("result that cannot be pickled", needs="crosses_boundary")
    def test_a_result_that_cannot_be_pickled_is_named(self, stage: Stage) -> None:
        error = stage.begin(tasks.hold_lock).failure(self.step_seconds)
        assert isinstance(error, WoveError)
        assert "hold_lock" in str(error), "the task is named"
        assert "lock" in str(error).replace("hold_lock", ""), "the part is named"
        self.assert_works(stage)

    @scenario("SystemExit inside a task", needs="crosses_boundary")
    def test_a_task_that_exits_fails_and_its_worker_goes_on(self, stage: Stage) -> None:
        error = stage.begin(tasks.leave).failure(self.step_seconds)
        assert isinstance(error, Exception), "it must not end the weave's own process"
        assert "SystemExit" in str(error)
        self.assert_works(stage)

    @scenario("20 MB argument", needs="max_argument_20mb")
    def test_a_large_argument_arrives(self, stage: Stage) -> None:
        blob = tasks.make_blob(_LARGE)
        assert stage.call(tasks.digest, blob=blob) == hashlib.sha256(blob).hexdigest()

    @scenario("20 MB result")
    def test_a_large_result_arrives(self, stage: Stage) -> None:
        assert stage.call(tasks.make_blob, size=_LARGE) == tasks.make_blob(_LARGE)

    @scenario("three plain weaves in a row")
    def test_three_plain_weaves_in_a_row_all_work(self, stage: Stage) -> None:
        values = []
        for left in range(3):
            with wove.weave(left=left, right=10) as w:
                w.do(environment=ENVIRONMENT)(tasks.add)
            values.append(w.result["add"])
        assert values == [10, 11, 12]

    @scenario("two weaves at once")
    def test_two_weaves_at_once_keep_their_values_apart(self, stage: Stage) -> None:
        first = stage.begin(tasks.wait_and_return, board=stage.board.address, label="both", size=10)
        stage.journal.wait_for_start("wait_and_return", seconds=self.step_seconds)
        second = stage.begin(tasks.wait_and_return, board=stage.board.address, label="both", size=20)
        stage.journal.wait_for_start("wait_and_return", count=2, seconds=self.step_seconds)
        stage.board.release("both")
        assert len(first.result(self.step_seconds)) == 10
        assert len(second.result(self.step_seconds)) == 20

    @scenario("the same idempotency key twice", needs="crosses_boundary")
    def test_one_key_in_flight_twice_runs_once_and_answers_both(self, stage: Stage) -> None:
        stage.board.release("once")
        options = {"delivery_idempotency_key": f"once-{stage.board.address}"}
        pids = stage.begin_map(tasks.attend_for, [1, 2], options, board=stage.board.address, label="once").result(
            self.step_seconds
        )
        assert len(stage.board.visits("once")) == 1
        assert pids == [stage.board.visits("once")[0].pid] * 2
