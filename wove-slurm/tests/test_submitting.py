"""How payloads become jobs: names, arrays, keys, and submissions whose answer is lost."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from slurm_backend import SlurmDeployment

from tests.beds.slurm import SlurmBed
from wove.errors import ConfigurationError, DeliveryError
from wove.testing import tasks
from wove.testing.stage import Stage, poll_until
from wove_slurm import SlurmAdapter
from wove_slurm.commands import Commands
from wove_slurm.script import build_script
from wove_slurm.settings import read_settings

SECONDS = 40.0


@asynccontextmanager
async def started(config: dict[str, Any]) -> AsyncIterator[SlurmAdapter]:
    adapter = SlurmAdapter(name="slurm", config=config, callback_url="http://127.0.0.1:9/events", run_config={})
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def submission(run_id: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    delivery = changes.pop("delivery", {})
    payload = {"version": 1, "run_id": run_id, "task_name": "report", "callable_pickle": "c2VjcmV0", **changes}
    return payload, {"run_id": run_id, "delivery": delivery}


@pytest.fixture
def config(deployment: SlurmDeployment) -> Iterator[dict[str, Any]]:
    """The configuration for a cluster that starts no jobs, and forgets those that are there afterwards."""
    deployment.ensure_worker()
    deployment.stop_workers()
    yield {**deployment.environment()["executor_config"], "command": "true"}
    deployment.bed.client("scancel", f"--user={os.getuid()}")


@pytest.fixture
def stage(deployment: SlurmDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


async def test_a_job_is_called_after_its_run(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started({**config, "job_name_prefix": "reports-"}) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        assert bed.jobs() == [f"{handle.key} reports-report-1 PENDING"]
        assert repr(handle) == f"<Slurm job {handle.key} reports-report-1>"


async def test_jobs_that_come_together_are_one_array(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        handles = await adapter.submit_many([submission(f"report-{number}") for number in range(7)])
        array = str(handles[0]).split()[2].partition("_")[0]
        assert [str(handle) for handle in handles] == [
            f"<Slurm job {array}_{index} wove-report-0>" for index in range(7)
        ]
        assert len(bed.jobs()) == 7


async def test_what_one_script_cannot_hold_becomes_several_arrays(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        handles = await adapter.submit_many(
            [submission(f"report-{number}", args_pickle=str(number) * 50_000) for number in range(9)]
        )
        arrays = {str(handle).partition("_")[0] for handle in handles}
        assert 1 < len(arrays) < 9
        assert len(bed.jobs()) == 9


async def test_jobs_are_not_requeued_and_their_options_arrive(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started({**config, "partition": "short", "time_limit": 1, "cpus_per_task": 2}) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        shown = bed.client("scontrol", "show", "job", handle.key).stdout
    for expected in ("Requeue=0", "Partition=short", "TimeLimit=00:01:00", "CPUs/Task=2"):
        assert expected in shown


async def test_a_run_is_submitted_once(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        first = await adapter.submit(*submission("report-1"))
        assert await adapter.submit(*submission("report-1")) is first
        assert len(bed.jobs()) == 1


async def test_two_processes_share_no_idempotency_key(bed: SlurmBed, config: dict[str, Any]) -> None:
    delivery = {"delivery_idempotency_key": "account 7: März"}
    async with started(config) as one, started(config) as other:
        first = await one.submit(*submission("report-1", delivery=delivery))
        with pytest.raises(DeliveryError, match=f"Slurm has the job {first.key} for the idempotency key 'account 7"):
            await other.submit(*submission("report-2", delivery=delivery))
        assert len(bed.jobs()) == 1
        # As soon as it is over, the key is free again.
        await one.cancel("report-1", first, {})
        await other.submit(*submission("report-3", delivery=delivery))


async def test_cancelling_removes_jobs_and_may_be_repeated(bed: SlurmBed, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        names = [f"report-{number}" for number in range(5)]
        handles = await adapter.submit_many([submission(name) for name in names])
        await asyncio.gather(*(adapter.cancel(name, handle, {}) for name, handle in zip(names, handles, strict=True)))
        await adapter.cancel(names[0], handles[0], {})
        assert bed.jobs() == []


async def test_nothing_of_ours_is_left_when_the_adapter_is_closed(
    deployment: SlurmDeployment, config: dict[str, Any]
) -> None:
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        await adapter.cancel("report-1", handle, {})
    assert not deployment.logs.exists()


async def test_a_detached_job_that_waits_keeps_the_place_of_its_log(
    deployment: SlurmDeployment, config: dict[str, Any]
) -> None:
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1", delivery={"delivery_orphan_policy": "detach"}))
    (folder,) = deployment.logs.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


async def test_programs_that_are_not_there_are_an_error_at_start() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Slurm's program '/nowhere/scontrol' cannot be started.*slurm-client"
    ):
        async with started({"sbatch": "/nowhere/sbatch"}):
            pass


async def test_a_variable_that_is_not_set_is_an_error_at_start() -> None:
    with pytest.raises(ConfigurationError, match="export names NOT_SET_ANYWHERE, not set in this process"):
        async with started({"export": ["NOT_SET_ANYWHERE"]}):
            pass


async def test_a_directory_for_logs_that_cannot_be_made_is_an_error_at_start(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"directory for the logs of jobs cannot be made.*'output': 'none'"):
        async with started({**config, "output": f"{tmp_path}/file/"}):
            pass


# --- answers that are lost ---


@pytest.fixture
def run_id() -> str:
    """An id that no job has ever had, as those of runs are."""
    return f"report-{token_hex(8)}"


async def test_a_job_that_a_frozen_controller_took_is_found(bed: SlurmBed, config: dict[str, Any], run_id: str) -> None:
    async with started(config) as adapter:
        bed.freeze_controller()
        # Longer than sbatch waits for its answer.
        thawing = threading.Timer(8.0, bed.thaw_controller)
        thawing.start()
        try:
            handle = await adapter.submit(*submission(run_id))
        finally:
            thawing.join()
        assert bed.jobs() == [f"{handle.key} wove-{run_id} PENDING"]


def forgetful(folder: Path, config: dict[str, Any], answer: str) -> str:
    """Return a directory with Slurm's programs, whose sbatch loses the answer of its first call."""
    real = Path(config["sbatch"]).parent
    for name in ("squeue", "scancel", "scontrol", "sacct"):
        shutil.copy(real / name, folder / name)
    program = folder / "sbatch"
    program.write_text(
        f'#!/bin/sh\nif [ -e {folder}/called ]; then exec {real}/sbatch "$@"; fi\n: >{folder}/called\n{answer}\n'
    )
    program.chmod(0o755)
    return str(program)


LOST = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"


async def test_a_job_whose_answer_was_lost_is_not_submitted_again(
    bed: SlurmBed, config: dict[str, Any], run_id: str, tmp_path: Path
) -> None:
    real = config["sbatch"]
    sbatch = forgetful(tmp_path, config, f'{real} "$@" >/dev/null; {LOST}')
    async with started({**config, "sbatch": sbatch}) as adapter:
        handles = await adapter.submit_many([submission(run_id), submission(f"{run_id}-2")])
        assert [f"{handle.key} wove-{run_id} PENDING" for handle in handles] == bed.jobs()  # type: ignore[union-attr]


async def test_a_job_that_was_lost_with_its_answer_is_submitted_again(
    bed: SlurmBed, config: dict[str, Any], run_id: str, tmp_path: Path
) -> None:
    async with started({**config, "sbatch": forgetful(tmp_path, config, LOST)}) as adapter:
        handle = await adapter.submit(*submission(run_id))
        assert bed.jobs() == [f"{handle.key} wove-{run_id} PENDING"]


async def test_a_controller_that_cannot_be_reached_is_an_error_without_a_search(
    deployment: SlurmDeployment, config: dict[str, Any], run_id: str
) -> None:
    async with started(config) as adapter:
        deployment.take_backend_down()
        try:
            with pytest.raises(ConnectionError, match="Slurm's controller cannot be reached: sbatch says: "):
                await adapter.submit(*submission(run_id))
        finally:
            deployment.bring_backend_up()


# --- the project's own function ---


def test_a_function_of_the_projects_own_submits(stage: Stage, deployment: SlurmDeployment) -> None:
    config = deployment.environment()["executor_config"]
    sbatch = config.pop("sbatch")
    commands = Commands(read_settings({"sbatch": sbatch}))

    def submit(payload: dict[str, Any], frame: dict[str, Any]) -> int:
        script = build_script([payload], command=read_settings({}).command)
        return int(commands.sbatch(["--job-name=mine", "--output=/dev/null", "--no-requeue"], script).text)

    stage.configure(submit=submit, export=None)
    assert stage.begin_map(tasks.double, [1, 2, 3]).result(SECONDS) == [2, 4, 6]
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="mine")
    stage.board.wait_for("mine", seconds=SECONDS)
    running.abandon()
    poll_until(lambda: deployment.bed.jobs() == [], seconds=SECONDS, what="the job has been cancelled")


def test_a_function_that_returns_no_id_is_an_error(stage: Stage) -> None:
    stage.configure(submit=lambda payload, frame: None, export=None)
    with pytest.raises(DeliveryError, match=r"must return the id of Slurm's job, such as 17 or '17_3'; .* a NoneType"):
        stage.call(tasks.add, left=1, right=2)


@pytest.mark.parametrize("path", ["nowhere:submit", "os:nothing", "os:name"])
async def test_an_import_path_that_leads_nowhere_is_an_error_at_start(path: str) -> None:
    with pytest.raises(ConfigurationError, match="leads to no function"):
        async with started({"submit": path}):
            pass
