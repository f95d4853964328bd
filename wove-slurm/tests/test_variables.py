"""Which environment variables reach sbatch, and so a job."""

import pytest

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
