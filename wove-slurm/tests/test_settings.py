"""What an ``executor_config`` may hold, and what its errors say."""

import sys
from datetime import timedelta
from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_slurm.settings import read_settings


def test_nothing_is_needed() -> None:
    settings = read_settings({})
    assert settings.command == f"{sys.executable} -m wove.backend_worker"
    assert (settings.sbatch, settings.scancel, settings.prefix, settings.options) == ("sbatch", "scancel", "wove-", {})


def test_options_become_those_of_sbatch() -> None:
    config = {
        "partition": ["gpu", "fast"],
        "account": "project-17",
        "qos": "high",
        "time_limit": timedelta(hours=1, seconds=30),
        "nodes": "1-2",
        "cpus_per_task": 4,
        "mem": "8G",
        "gres": ["gpu:1", "license:2"],
        "constraint": "rack1&gpu",
    }
    assert read_settings(config).options == {
        "partition": "gpu,fast",
        "account": "project-17",
        "qos": "high",
        "time": "60:30",
        "nodes": "1-2",
        "cpus-per-task": "4",
        "mem": "8G",
        "gres": "gpu:1,license:2",
        "constraint": "rack1&gpu",
    }


@pytest.mark.parametrize("limit", [90, "90", "01:30:00", "1-12", "1-12:30:00", "UNLIMITED"])
def test_a_time_limit_is_minutes_or_what_sbatch_takes(limit: object) -> None:
    assert read_settings({"time_limit": limit}).options["time"] == str(limit)


def test_with_setup_lines_the_interpreter_is_theirs() -> None:
    settings = read_settings({"setup": "module load python\r\n. venv/bin/activate"})
    assert settings.setup == ("module load python", ". venv/bin/activate")
    assert settings.command == "python -m wove.backend_worker"


def test_a_command_may_be_a_list_of_words() -> None:
    command = ["apptainer", "exec", "my image.sif", "python", "-m", "wove.backend_worker"]
    assert read_settings({"command": command}).command == "apptainer exec 'my image.sif' python -m wove.backend_worker"


def test_other_programs_are_looked_for_beside_sbatch() -> None:
    settings = read_settings({"sbatch": "/opt/slurm/bin/sbatch"})
    assert (settings.scancel, settings.squeue) == ("/opt/slurm/bin/scancel", "/opt/slurm/bin/squeue")
    assert read_settings({"sbatch": "/opt/sbatch", "scancel": "/usr/bin/scancel"}).scancel == "/usr/bin/scancel"


def test_keys_of_the_core_are_left_to_it() -> None:
    config = {"partition": "gpu", "callback_port": 9010, "max_payload_bytes": 1000, "dead_job_grace": 1.0}
    assert read_settings(config).options == {"partition": "gpu"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"partitoin": "gpu"}, r"no key named 'partitoin'. Did you mean 'partition'\?"),
        ({"partition": "--uid=0"}, r"partition must be a word without spaces that does not begin with a dash"),
        ({"account": "a b"}, r"account must be a word without spaces"),
        ({"gres": "gpu:1\n"}, r"gres must be a word without spaces"),
        ({"time_limit": "soon"}, r"time_limit must be minutes, a timedelta, .* for example '01:30:00'"),
        ({"time_limit": 1.5}, r"time_limit must be minutes"),
        ({"nodes": 0}, r"nodes must be a whole number of at least 1, for example 1; it is 0"),
        ({"nodes": "many"}, r"nodes must be a number of nodes or a range of them"),
        ({"cpus_per_task": True}, r"cpus_per_task must be a whole number"),
        ({"mem": "much"}, r"mem must be a number of megabytes, or a text with a unit"),
        ({"job_name_prefix": "my jobs-"}, r"job_name_prefix must be at most 64 letters"),
        ({"command": "a\nb"}, r"command must be one line, or a list of words"),
        ({"setup": [1]}, r"setup must be lines of shell"),
        ({"export": {"A-B": "1"}}, r"export must be names of variables"),
        ({"export": {"A": 1}}, r"a value is a text, or None"),
        ({"export": 5}, r"export must be names of variables"),
        ({"output": ""}, r"output must be a text that is not empty"),
        ({"poll_interval": 0}, r"poll_interval must be a positive number of seconds"),
        ({"unschedulable_after": "soon"}, r"unschedulable_after must be a positive number of seconds, or 'never'"),
        ({"submit": "mymodule"}, r"submit must be a function that takes \(payload, frame\)"),
        ({"submit": print, "partition": "gpu"}, r"partition is for jobs that Wove hands to sbatch"),
        ({"submit": print, "setup": "true"}, r"setup is for jobs that Wove hands to sbatch"),
    ],
)
def test_an_error_names_the_key_and_shows_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_settings(config, name="cluster")
    assert "executor_config of 'cluster'" in str(raised.value)


def test_patience_may_be_endless() -> None:
    assert read_settings({"unschedulable_after": "never"}).unschedulable_after is None


def test_no_value_of_a_variable_is_shown() -> None:
    settings = read_settings({"export": {"HF_TOKEN": "secret"}})
    assert "secret" not in repr(settings)
    with pytest.raises(ConfigurationError) as raised:
        read_settings({"export": "HF_TOKEN=secret,A-B=secret"})
    assert "secret" not in str(raised.value)
