"""Programs of their own: for what concerns a whole process, such as signals and the interpreter's exit."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

SECONDS = 30.0


def run_program(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a folder, with warnings as errors, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(_written(source, folder))],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Program:
    """A running program whose lines can be waited for."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        """Block until the program prints a line."""
        assert self.process.stdout is not None
        while line not in self.lines:
            printed = self.process.stdout.readline()
            assert printed, f"The program ended without printing {line!r}; it printed {self.lines}."
            self.lines.append(printed.rstrip("\n"))

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str, float]:
        """Wait for the end; return exit code, output, error output and the seconds that it took from now on."""
        began = time.monotonic()
        output, errors = self.process.communicate(timeout=SECONDS)
        lines = "\n".join([*self.lines, output])
        return self.process.returncode, lines, errors, time.monotonic() - began


@contextmanager
def started_program(source: str, folder: Path) -> Iterator[Program]:
    """Start a Python program in a folder; it is killed at the end of the block if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-u", str(_written(source, folder))],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def _written(source: str, folder: Path) -> Path:
    file = folder / "program.py"
    file.write_text(dedent(source), encoding="utf-8")
    return file


def _environment(folder: Path) -> dict[str, str]:
    """This process's environment without anything of Wove, and with temporary files in a folder that can be listed."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WOVE_")}
    return kept | {"TMPDIR": str(temporary)}
