"""Jobs that die, each in a way of Slurm's own: the weave ends with an error that says how."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed
from wove.errors import DeliveryError, DeliveryOrphanedError, DeliveryTimeoutError, TaskCancelledError
from wove.testing import Visit, tasks
from wove.testing.stage import Stage, poll_until

SECONDS = 40.0


@pytest.fixture
def stage(deployment: SlurmDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def stubborn() -> Callable[[str, str], str]:
    """Return a task that ignores SIGTERM. Defined inside of a function, it travels by value."""

    def hold_on(board: str, label: str) -> str:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                return tasks.wait_at(board, label)
            except BaseException:
                pass

    return hold_on


def is_gone(visit: Visit) -> bool:
    try:
        os.kill(visit.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_error_has_exit_code_and_the_end_of_the_log(stage: Stage) -> None:
    stage.configure(command="sh -c 'echo out of luck >&2; exit 3' worker")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert (error.state, error.exit_code) == ("failed", 3)
    assert "FAILED" in str(error)
    assert "its log ends with: out of luck" in str(error)


def test_an_interpreter_that_is_not_there_is_named(stage: Stage) -> None:
    stage.configure(command="/nowhere/bin/python -m wove.backend_worker")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.exit_code == 127
    assert "/nowhere/bin/python" in str(error)


def test_a_log_that_the_configuration_names_is_read_and_stays(stage: Stage, deployment: SlurmDeployment) -> None:
    folder = deployment.logs / "own"
    folder.mkdir(parents=True)
    stage.configure(output=f"{folder}/%x-%j.out", command="sh -c 'echo out of luck; exit 1' worker")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert "its log ends with: out of luck" in str(error)
    (path,) = folder.iterdir()
    assert path.name.startswith("wove-add-")
    path.unlink()


def test_scancel_by_somebody_else_is_reported_by_the_worker(stage: Stage, deployment: SlurmDeployment) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="evicted")
    stage.wait_until_known(tasks.wait_at, "evicted")
    deployment.bed.cancel_jobs()
    assert isinstance(running.failure(SECONDS), TaskCancelledError)


def test_a_worker_that_does_not_report_it_is_killed_and_reported_by_slurm(
    stage: Stage, deployment: SlurmDeployment
) -> None:
    running = stage.begin(stubborn(), board=stage.board.address, label="stubborn")
    stage.board.wait_for("stubborn", seconds=SECONDS)
    deployment.bed.cancel_jobs()
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "cancelled"
    assert "CANCELLED" in str(error)


def test_a_job_that_was_cancelled_before_it_began_is_reported(stage: Stage, deployment: SlurmDeployment) -> None:
    deployment.stop_workers()
    running = stage.begin_map(tasks.double, [1, 2])
    stage.journal.wait_for_submission("double", count=2, seconds=SECONDS)
    deployment.bed.client("scancel", f"--user={os.getuid()}")
    assert isinstance(running.failure(SECONDS), DeliveryOrphanedError)


def test_a_cancelled_task_leaves_no_process_whatever_it_does(stage: Stage) -> None:
    running = stage.begin(stubborn(), board=stage.board.address, label="stubborn")
    (visit,) = stage.board.wait_for("stubborn", seconds=SECONDS)
    running.abandon()
    assert running.wait(SECONDS)
    poll_until(lambda: is_gone(visit), seconds=SECONDS, what="the process has ended")


def test_what_slurm_will_never_start_is_given_up(stage: Stage, deployment: SlurmDeployment) -> None:
    stage.configure(partition="short", time_limit="02:00:00", unschedulable_after=1.0)
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert "Slurm cannot start the job" in str(error)
    assert "PartitionTimeLimit" in str(error)
    poll_until(lambda: deployment.leftovers() == [], seconds=SECONDS, what="nothing is left")


def test_a_timeout_says_what_the_job_has_been_waiting_for(stage: Stage, deployment: SlurmDeployment) -> None:
    deployment.stop_workers()
    error = stage.begin(tasks.add, {"delivery_timeout": 6.0}, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryTimeoutError)
    assert "DRAINED" in str(error)
    deployment.ensure_worker()


@pytest.mark.parametrize(
    ("config", "message"),
    [({"partition": "nowhere"}, "[Ii]nvalid partition"), ({"mem": "900T"}, "[Mm]emory"), ({"gres": "gpu:9"}, "gres")],
)
def test_what_slurm_refuses_is_an_error_at_once(stage: Stage, config: dict[str, str], message: str) -> None:
    stage.configure(**config)
    with pytest.raises(DeliveryError, match=f"Slurm refuses the job: .*{message}") as raised:
        stage.call(tasks.add, left=1, right=2)
    assert "pickle" not in str(raised.value)


def test_a_node_that_failed_is_named(stage: Stage, deployment: SlurmDeployment, bed: SlurmBed) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
    stage.wait_until_known(tasks.wait_at, "doomed")
    deployment.kill_worker()
    error = running.failure(2 * SECONDS)
    deployment.ensure_worker()
    assert isinstance(error, DeliveryError)
    assert "NODE_FAIL" in str(error)
    assert bed.node in str(error)


def test_a_job_that_takes_too_long_is_reported(stage: Stage, bed: SlurmBed) -> None:
    stage.configure(time_limit=5)
    running = stage.begin(stubborn(), board=stage.board.address, label="slow")
    stage.board.wait_for("slow", seconds=SECONDS)
    (job,) = [line.split()[0] for line in bed.jobs()]
    # Slurm knows no limit below a minute, and looks at them every half minute.
    bed.client("scontrol", "update", f"jobid={job}", "endtime=now")
    error = running.failure(90.0)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "failed"
    assert "TIMEOUT" in str(error)
    assert "ask for more with 'time_limit'" in str(error)
    assert "DUE TO TIME LIMIT" in str(error), "Slurm's own words are in the log"


def test_tasks_outlive_a_controller_that_is_away(stage: Stage, bed: SlurmBed) -> None:
    healthy = stage.begin(tasks.wait_at, board=stage.board.address, label="healthy")
    doomed = stage.begin(tasks.wait_at_later, board=stage.board.address, label="doomed")
    visit = stage.wait_until_known(tasks.wait_at_later, "doomed")
    stage.wait_until_known(tasks.wait_at, "healthy")
    bed.stop_controller()
    os.kill(visit.pid, signal.SIGKILL)
    # That time passes is what this test is about: long enough for several questions that nobody answers.
    assert not doomed.wait(10.0)
    bed.start_controller()
    assert isinstance(doomed.failure(SECONDS), DeliveryOrphanedError)
    stage.board.release("healthy")
    assert healthy.result(SECONDS) == "released"
