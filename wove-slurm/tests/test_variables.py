"""Which environment variables reach sbatch, and so a job."""

import time
from pathlib import Path

import pytest

from wove.errors import ConfigurationError
from wove_slurm import SlurmAdapter
from wove_slurm.variables import Variables, check_export, client_variables


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_HOME": "/models",
        "SLURM_JOB_ID": "17",
        "SLURM_CONF": "/etc/slurm.conf",
        "SBATCH_ARRAY_INX": "0-9",
        "SBATCH_ACCOUNT": "project",
        "SQUEUE_FORMAT": "%i",
    }.items():
        monkeypatch.setenv(name, value)


def test_no_secret_of_the_submitter_reaches_a_job() -> None:
    found = Variables().of_sbatch()
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert {"PATH", "SLURM_CONF", "SBATCH_ACCOUNT"} <= found.keys()


def test_what_an_enclosing_job_has_set_concerns_neither_jobs_nor_programs() -> None:
    for found in (Variables().of_sbatch(), Variables(whole="ALL").of_sbatch(), client_variables()):
        assert not {"SLURM_JOB_ID", "SBATCH_ARRAY_INX", "SQUEUE_FORMAT"} & found.keys()
        assert found["SLURM_CONF"] == "/etc/slurm.conf"


@pytest.mark.parametrize(
    "given",
    [["HF_HOME", "OMP_NUM_THREADS=4"], "HF_HOME, OMP_NUM_THREADS=4", {"HF_HOME": None, "OMP_NUM_THREADS": "4"}],
)
def test_names_take_their_values_from_here(given: object) -> None:
    variables = check_export(given)
    found = variables.of_sbatch()
    assert (found["HF_HOME"], found["OMP_NUM_THREADS"]) == ("/models", "4")
    assert variables.option == "ALL"
    assert variables.missing() == []


def test_a_name_without_a_value_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME")
    assert check_export(["HF_HOME"]).missing() == ["HF_HOME"]


def test_everything_or_a_login_environment_can_be_asked_for() -> None:
    assert check_export("all").of_sbatch()["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert check_export("NIL").option == "NIL"
    assert "AWS_SECRET_ACCESS_KEY" not in check_export("NIL").of_sbatch()


def test_what_proves_the_submitter_to_slurm_is_forgotten_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Variables().to_forget() == []
    monkeypatch.setenv("SLURM_JWT", "secret")
    assert Variables().to_forget() == ["SLURM_JWT"]


@pytest.mark.parametrize("export", [None, {"SLURM_CONF": "/nowhere/of-export/slurm.conf"}])
async def test_a_slurm_conf_that_is_not_there_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: dict[str, str] | None
) -> None:
    # Programs like Slurm's own, which wait a minute for the file.
    for name in ("scontrol", "sbatch"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexec sleep 60\n")
        program.chmod(0o755)
    there = tmp_path / "slurm.conf"
    there.touch()
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf" if export is None else str(there))
    config = {"sbatch": str(tmp_path / "sbatch"), "export": export}
    adapter = SlurmAdapter(name="cluster", config=config, callback_url="http://127.0.0.1:9/events", run_config={})
    before = time.monotonic()
    with pytest.raises(ConfigurationError) as raised:
        await adapter.start()
    assert time.monotonic() - before < 20.0
    path = "/nowhere/slurm.conf" if export is None else export["SLURM_CONF"]
    assert f"executor_config of 'cluster': SLURM_CONF is {path!r}" in str(raised.value)
    assert "Set it to the path of the cluster's slurm.conf" in str(raised.value)


def test_a_slurm_conf_that_is_there_or_not_set_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    Variables().check_conf(where="here")
    monkeypatch.delenv("SLURM_CONF")
    Variables(whole="ALL").check_conf(where="here")
