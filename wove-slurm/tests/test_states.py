"""What squeue and sacct print, and what it means for a run."""

import pytest

from wove_slurm.states import Row, read_sacct, read_squeue, state_of

SQUEUE = """\
17|COMPLETED|None|0|node1|wove-report-1|17|
18_0|FAILED|NonZeroExitCode|768|node1|wove-map-1|18|
18_1|OUT_OF_MEMORY|OutOfMemory|9|node2|wove-map-1|19|
20|PENDING|PartitionTimeLimit|0||wove-long|20|
21|RUNNING|None|0|node[1-2]|wove-wide|21|
22|CANCELLED|None|36608|node1|wove-x|22|
CLUSTER: other
"""


def test_rows_of_squeue() -> None:
    rows = read_squeue(SQUEUE)
    assert {key: (row.phase, row.exit_code) for key, row in rows.items()} == {
        "17": ("finished", 0),
        "18_0": ("failed", 3),
        "18_1": ("failed", -9),
        "20": ("queued", 0),
        "21": ("running", 0),
        "22": ("cancelled", 143),
    }
    assert rows["18_1"].number == "19"


def test_rows_of_sacct() -> None:
    rows = read_sacct("17|COMPLETED|0:0|node1\n18_1|CANCELLED by 1000|0:15|node2\n19|FAILED|3:0|node1\n20|||\n")
    assert {key: (row.state, row.exit_code) for key, row in rows.items()} == {
        "17": ("COMPLETED", 0),
        "18_1": ("CANCELLED", -15),
        "19": ("FAILED", 3),
    }


@pytest.mark.parametrize("state", ["COMPLETING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "SOMETHING_NEW"])
def test_a_state_that_is_not_final_says_nothing(state: str) -> None:
    assert not Row("17", state).is_over


@pytest.mark.parametrize("state", ["PENDING", "CONFIGURING", "REQUEUED", "SPECIAL_EXIT"])
def test_a_job_that_waits_is_not_over(state: str) -> None:
    assert (Row("17", state).phase, Row("17", state).is_over) == ("queued", False)


@pytest.mark.parametrize(
    "state", ["BOOT_FAIL", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"]
)
def test_a_job_that_died_has_failed(state: str) -> None:
    assert (Row("17", state).phase, Row("17", state).is_over) == ("failed", True)


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionTimeLimit",
        "PartitionNodeLimit",
        "PartitionConfig",
        "PartitionDown",
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "QOSNotAllowed",
        "AccountNotAllowed",
        "DependencyNeverSatisfied",
        "QOSMaxCpuPerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
    ],
)
def test_what_a_job_can_never_get_is_hopeless(reason: str) -> None:
    assert Row("17", "PENDING", reason).is_hopeless
    assert not Row("17", "RUNNING", reason).is_hopeless


@pytest.mark.parametrize(
    "reason",
    [
        "None",
        "Priority",
        "Resources",
        "BeginTime",
        "JobHeldUser",
        "Licenses",
        "JobArrayTaskLimit",
        "QOSMaxJobsPerUserLimit",
        "AssocGrpCpuLimit",
        "ReqNodeNotAvail, Reserved for maintenance",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    ],
)
def test_what_comes_with_time_is_not(reason: str) -> None:
    assert not Row("17", "PENDING", reason).is_hopeless


def test_an_error_says_what_is_known() -> None:
    row = read_squeue(SQUEUE)["18_1"]
    state = state_of(row, what="Slurm's job 18_1", tail="Traceback\nKilled")
    assert (state.phase, state.exit_code) == ("failed", -9)
    assert state.reason == (
        "Slurm's job 18_1 on node2 is OUT_OF_MEMORY (OutOfMemory, ended by SIGKILL, ask for more with 'mem'); "
        "its log ends with: Traceback\nKilled"
    )


def test_a_job_that_waits_for_ever_counts_as_failed() -> None:
    state = state_of(read_squeue(SQUEUE)["20"], what="Slurm cannot start the job 20: it")
    assert (state.phase, state.exit_code) == ("failed", None)
    assert state.reason == "Slurm cannot start the job 20: it is PENDING (PartitionTimeLimit)"
