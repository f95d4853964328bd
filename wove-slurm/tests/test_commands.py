"""What is made of the answers of Slurm's programs, and of programs that give none."""

import threading
import time
from pathlib import Path

import pytest

from wove.errors import ConfigurationError
from wove_slurm.commands import Answer, Commands
from wove_slurm.settings import read_settings


def commands(folder: Path, script: str) -> Commands:
    """Return commands whose every program is a shell script."""
    for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return Commands(read_settings({"sbatch": str(folder / "sbatch")}))


@pytest.mark.parametrize(
    "complaint",
    [
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "If munged is up, restart with --num-threads=10; Connection refused",
    ],
)
def test_a_controller_that_was_not_reached_has_got_nothing(complaint: str) -> None:
    answer = Answer(1, "", complaint)
    assert (answer.not_reached, answer.in_doubt) == (True, False)


@pytest.mark.parametrize(
    "complaint",
    [
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Zero Bytes were transmitted or received",
        "Batch job submission failed: Unexpected message received",
        "Batch job submission failed: Unable to contact slurm controller (shutdown failure)",
    ],
)
def test_an_answer_that_was_lost_leaves_a_doubt(complaint: str) -> None:
    answer = Answer(1, "", complaint)
    assert (answer.not_reached, answer.in_doubt) == (False, True)


def test_a_program_that_was_killed_or_took_too_long_leaves_a_doubt() -> None:
    assert Answer(-9, "", "").in_doubt
    assert Answer(None, "", "").in_doubt


def test_a_refusal_is_none() -> None:
    answer = Answer(1, "", "Batch job submission failed: Invalid partition name specified")
    assert (answer.not_reached, answer.in_doubt) == (False, False)


def test_a_complaint_is_shortened_and_does_not_repeat_itself(tmp_path: Path) -> None:
    script = "for i in 1 2 3; do echo 'squeue: error: no such thing' >&2; done; echo 'squeue: fatal' >&2; exit 1"
    answer = commands(tmp_path, script).squeue()
    assert answer.complaint == "no such thing; fatal"


def test_a_program_without_a_word_is_described(tmp_path: Path) -> None:
    assert commands(tmp_path, "exit 7").scancel(["17"]).failure == "exit code 7 without a word"


def test_the_script_is_on_the_standard_input_and_in_no_word_of_the_command(tmp_path: Path) -> None:
    answer = commands(tmp_path, 'echo "$@"; cat').sbatch(["--job-name=report"], "#!/bin/sh\nsecret")
    assert answer.text == "--parsable --job-name=report\n#!/bin/sh\nsecret"


def test_closing_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    slow = commands(tmp_path, f": >{tmp_path}/begun; exec sleep 60")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(slow.squeue()))
    before = time.monotonic()
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    slow.close()
    thread.join()
    assert time.monotonic() - before < 30.0
    assert answers[0].in_doubt
    with pytest.raises(ConnectionError, match="the adapter has been closed"):
        slow.squeue()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'/nowhere/squeue' cannot be started: No such file"):
        Commands(read_settings({"sbatch": "/nowhere/sbatch"})).squeue()
