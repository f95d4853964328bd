"""Batch scripts, run by the shells that Slurm would run them with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from wove_slurm.script import build_script

# In place of a worker, whose option it does not know.
CAT = "sh -c cat worker"
NASTY = 'it\'s $HOME `id` \\ "quoted" \n WOVE_PAYLOAD \u00e9'


def run(script: str, folder: Path, shell: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "script"
    path.write_text(script)
    return subprocess.run(
        [shell, str(path)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **variables}, check=False
    )


def received(script: str, folder: Path, shell: str, **variables: str) -> Any:
    ran = run(script, folder, shell, **variables)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(params=["sh", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_worker_reads_the_payload(tmp_path: Path, shell: str) -> None:
    payload = {"version": 1, "run_id": "run-1", "task_name": NASTY, "args_pickle": "A" * 200_000}
    assert received(build_script([payload], command=CAT), tmp_path, shell) == payload


def test_each_element_reads_its_own_payload(tmp_path: Path, shell: str) -> None:
    payloads = [
        {"version": 1, "task_name": NASTY, "run_id": f"run-{index}", "args_pickle": NASTY * index, "deadline": None}
        for index in range(12)
    ]
    script = build_script(payloads, command=CAT)
    for index in (0, 1, 11):
        assert received(script, tmp_path, shell, SLURM_ARRAY_TASK_ID=str(index)) == payloads[index]


def test_what_payloads_share_stands_in_a_script_once() -> None:
    payloads = [{"version": 1, "run_id": f"run-{index}", "callable_pickle": "Q" * 10_000} for index in range(100)]
    assert len(build_script(payloads, command=CAT)) < 20_000


def test_a_payload_may_lack_what_another_one_has(tmp_path: Path) -> None:
    payloads = [{"version": 1, "run_id": "a", "claim": {"size": 1}}, {"version": 1, "run_id": "b", "args_pickle": "x"}]
    script = build_script(payloads, command=CAT)
    assert [received(script, tmp_path, "sh", SLURM_ARRAY_TASK_ID=index) for index in "01"] == payloads


def test_the_worker_takes_the_place_of_the_shell(tmp_path: Path) -> None:
    command = """sh -c 'cat >/dev/null; echo $$'"""
    path = tmp_path / "script"
    path.write_text(build_script([{"run_id": "run-1"}], command=f"{command} worker"))
    process = subprocess.Popen(["sh", str(path)], stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=30)
    assert int(printed) == process.pid


def test_setup_lines_run_first_in_a_login_shell(tmp_path: Path) -> None:
    script = build_script(
        [{"run_id": "run-1"}], command="sh -c 'cat; echo $GREETING >&2' worker", setup=["export GREETING=hello"]
    )
    assert script.startswith("#!/bin/bash -l\n")
    ran = run(script, tmp_path, "bash")
    assert json.loads(ran.stdout) == {"run_id": "run-1"}
    assert ran.stderr == "hello\n"


def test_a_setup_line_that_fails_ends_the_job(tmp_path: Path) -> None:
    ran = run(build_script([{"run_id": "secret"}], command=CAT, setup=["ls /nowhere", "true"]), tmp_path, "bash")
    assert ran.returncode != 0
    assert "/nowhere" in ran.stderr
    assert "secret" not in ran.stdout + ran.stderr


def test_a_trace_of_the_setup_does_not_show_the_payload(tmp_path: Path) -> None:
    payloads = [{"version": 1, "run_id": f"secret-{index}"} for index in range(2)]
    ran = run(build_script(payloads, command="true", setup=["set -x"]), tmp_path, "bash", SLURM_ARRAY_TASK_ID="0")
    assert ran.returncode == 0
    assert "secret" not in ran.stderr


def test_variables_that_only_sbatch_needs_are_removed(tmp_path: Path) -> None:
    script = build_script([{"run_id": "run-1"}], command="env", forget=["SLURM_JWT"])
    assert "SLURM_JWT" not in run(script, tmp_path, "sh", SLURM_JWT="secret").stdout
