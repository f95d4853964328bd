"""Scenarios about events: lost, late, repeated, forged and replayed ones, seen through a proxy before the receiver."""

import base64
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from wove.testing import tasks
from wove.testing.conformance import Conformance
from wove.testing.deployment import Deployment
from wove.testing.outcomes import scenario
from wove.testing.proxy import Fault, FaultProxy
from wove.testing.requests import Request
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until


class EventScenarios(Conformance):
    """The way back, from the worker to the callback receiver."""

    def posting(self) -> Any:
        """Return an executor whose workers post every outcome; None where the deployment's own do."""
        return None

    @contextmanager
    def through_proxy(self, deployment: Deployment, stage: Stage, **executor_config: object) -> Iterator[FaultProxy]:
        """Send the events of the next weaves through a proxy."""
        port, token = free_port(deployment.host), token_hex(16)
        with FaultProxy((deployment.host, port), host=deployment.host) as proxy:
            stage.configure(
                self.posting(),
                callback_host=deployment.host,
                callback_port=port,
                callback_token=token,
                callback_url=proxy.url(f"/wove/events/{token}"),
                **executor_config,
            )
            yield proxy

    @scenario("receiver unreachable for seconds, then back")
    def test_a_result_survives_an_outage_of_the_receiver(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            running = stage.begin(tasks.wait_at, board=stage.board.address, label="outage")
            (visit,) = stage.board.wait_for("outage", seconds=self.step_seconds)
            proxy.go_away()
            stage.board.release("outage")
            stage.board.wait_for_end(visit, seconds=self.step_seconds)
            # The outage has to last.
            assert not running.wait(self.outage_seconds)
            proxy.come_back()
            assert running.result(self.step_seconds) == "released"

    @scenario("receiver unreachable at the start")
    def test_a_task_runs_although_its_start_cannot_be_reported(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            proxy.add(Fault("drop", event="task_started", times=None))
            assert stage.call(tasks.add, left=1, right=2) == 3

    @scenario("every event twice")
    def test_duplicated_events_change_nothing(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            proxy.add(Fault("duplicate", times=None))
            assert stage.begin_map(tasks.double, range(5)).result(self.step_seconds) == [0, 2, 4, 6, 8]
            poll_until(
                lambda: [len(request.statuses) for request in proxy.requests("task_result")] == [2] * 5,
                seconds=self.step_seconds,
                what="every result has arrived twice",
            )
            # When the repetition arrives, the weave may have ended already.
            assert {tuple(request.statuses) for request in proxy.requests("task_result")} <= {(200, 200), (200, 410)}
        for run_id in stage.journal.run_ids("double"):
            assert stage.journal.events(run_id).count("task_result") == 1

    @scenario("lost answers")
    def test_an_event_whose_answer_was_lost_counts_once(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            proxy.add(Fault("lose_answer", event="task_started"))
            proxy.add(Fault("lose_answer", event="task_result"))
            assert stage.call(tasks.add, left=1, right=2) == 3
            # A worker that finds the proxy gone repeats itself for minutes, and takes no other task meanwhile.
            poll_until(
                lambda: sum(bool(request.statuses) for request in proxy.requests("task_result")) == 2,
                seconds=self.step_seconds,
                what="the result has been repeated",
            )
        (run_id,) = stage.journal.run_ids("add")
        assert stage.journal.events(run_id).count("task_result") == 1

    @scenario("late events")
    def test_a_late_result_reaches_no_later_weave(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            proxy.add(Fault("hold", event="task_result"))
            late = stage.begin(tasks.attend, board=stage.board.address, label="late")
            stage.board.release("late")
            held = proxy.wait_for("task_result", seconds=self.step_seconds)
            late.abandon()
            assert late.wait(self.step_seconds)
            proxy.let_go()
            assert proxy.wait_for("task_result", run_id=held.run_id, answered=True).statuses == [410]
            self.assert_works(stage)

    @scenario("forged events")
    def test_forged_events_are_refused_and_never_unpickled(
        self, deployment: Deployment, stage: Stage, tmp_path: Path
    ) -> None:
        bomb = base64.b64encode(pickle.dumps(_Bomb(tmp_path / "exploded"))).decode()
        with self.through_proxy(deployment, stage) as proxy:
            running = stage.begin(tasks.wait_at, board=stage.board.address, label="victim")
            started = proxy.wait_for("task_started", answered=True, seconds=self.step_seconds)
            forged = _result_frame(started, bomb)
            token = started.path.rpartition("/")[2]
            guessed = started.path.replace(token, token_hex(16))
            assert proxy.send(started, path=guessed, body=forged, headers={}) == 404
            assert proxy.send(started, body=forged) == 401, "the signature is another body's"
            assert proxy.send(started, body=forged, headers={}) == 401, "a run that signs takes nothing unsigned"
            unknown = json.dumps({**json.loads(forged), "run_id": "nobody-knows-me"}).encode()
            assert proxy.send(started, body=unknown, headers={}) == 410
            stage.board.release("victim")
            assert running.result(self.step_seconds) == "released"
        assert not (tmp_path / "exploded").exists()

    @scenario("replayed events")
    def test_replayed_events_have_no_effect(self, deployment: Deployment, stage: Stage) -> None:
        with self.through_proxy(deployment, stage) as proxy:
            assert stage.call(tasks.add, left=1, right=2) == 3
            old = proxy.wait_for("task_result", answered=True)
            running = stage.begin(tasks.wait_at, board=stage.board.address, label="open")
            run_id = stage.journal.wait_for_submission("wait_at", seconds=self.step_seconds)
            own = proxy.wait_for("task_started", run_id=run_id, answered=True, seconds=self.step_seconds)
            assert proxy.send(old) in (200, 410), "a duplicate, or of a run that is not known any more"
            assert proxy.send(own) == 200, "a repeated event is a duplicate"
            stolen = json.dumps({**json.loads(old.body), "run_id": run_id}).encode()
            assert proxy.send(old, body=stolen) in (401, 410), "another run's credential"
            assert proxy.send(own, body=stolen) == 401, "another event's signature"
            stage.board.release("open")
            assert running.result(self.step_seconds) == "released"
        assert stage.journal.events(run_id).count("task_started") == 1


class _Bomb:
    """Leaves a trace when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def _result_frame(started: Request, pickled: str) -> bytes:
    frame = json.loads(started.body)
    return json.dumps({**frame, "type": "task_result", "result_pickle": pickled}).encode()
