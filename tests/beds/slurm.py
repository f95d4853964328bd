"""A Slurm cluster of one node for tests: munged, slurmctld and slurmd, with slurmdbd and MariaDB where accounting is
asked for. Everything lives below one directory and listens on free ports of the loopback.

To try something by hand, in a checkout::

    python -m tests.beds.slurm DIRECTORY        # runs until Ctrl-C
    SLURM_CONF=DIRECTORY/slurm.conf sbatch --wrap hostname
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.beds.slurm_config import HOST, write_config, write_database_config
from tests.beds.slurm_daemons import Daemons
from wove.testing.servers import free_port, require_program

PACKAGES = "apt-get install munge slurmctld slurmd slurm-client"
ACCOUNTING_PACKAGES = "apt-get install slurmdbd mariadb-server"
# Unix sockets have paths of at most 107 bytes.
_LONGEST_PATH = 80


class SlurmBed:
    """The cluster. As a context manager it is running inside of the block.

    Attributes:
        folder: where it keeps everything.
        config: the ``SLURM_CONF`` of its clients.
        controller_port: where slurmctld listens.
        node: the name of its node.

    Args:
        folder: an empty directory; one below the system's directory for temporary files if omitted, removed at the end.
        accounting: whether there is an accounting database.
        cpus: how many the node pretends to have.
        min_job_age: for how many seconds the controller remembers a job that has ended.
        kill_wait: seconds between SIGTERM and SIGKILL.
        node_timeout: seconds after which a node that does not answer is down.
        message_timeout: seconds within which daemons and clients expect an answer.
        more: further lines of slurm.conf.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        accounting: bool = False,
        cpus: int = 8,
        min_job_age: int = 300,
        kill_wait: int = 2,
        node_timeout: int = 2,
        message_timeout: int = 4,
        more: str = "",
    ) -> None:
        self._is_temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="wove-slurm-")) if folder is None else folder.resolve()
        if len(str(self.folder)) > _LONGEST_PATH:
            raise ValueError(f"{self.folder} is too long for the path of a socket. Choose a shorter directory.")
        self.controller_port = free_port()
        self.node = socket.gethostname().partition(".")[0]
        self.config = self.folder / "slurm.conf"
        self._accounting = accounting
        self._values = {
            "node": self.node,
            "host": HOST,
            "user": os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip(),
            "folder": self.folder,
            "controller_port": self.controller_port,
            "node_port": free_port(),
            "database_port": free_port(),
            "node_timeout": node_timeout,
            "message_timeout": message_timeout,
            "kill_wait": kill_wait,
            "min_job_age": min_job_age,
            "cpus": cpus,
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20,
        }
        self._more = more
        self._daemons = Daemons(self.folder / "log", self.config)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the node takes jobs."""
        programs = [require_program(name, install=PACKAGES) for name in ("munged", "slurmctld", "slurmd", "sbatch")]
        if self._accounting:
            require_program("slurmdbd", install=ACCOUNTING_PACKAGES)
            require_program("mariadbd", install=ACCOUNTING_PACKAGES)
        write_config(self.folder, self._values, accounting=self._accounting, more=self._more)
        self._start_munge(programs[0])
        if self._accounting:
            self._start_database()
        self.start_controller()
        self.start_node()

    def stop(self) -> None:
        """End everything that runs for this cluster, jobs included, and remove its directory if it is temporary."""
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._daemons.end(name)
        self.kill_jobs()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- its parts, and their deaths ---

    def start_controller(self) -> None:
        """Return when slurmctld answers."""
        if not self._daemons.is_running("slurmctld"):
            self._daemons.launch(
                "slurmctld", require_program("slurmctld", install=PACKAGES), "-D", "-f", str(self.config)
            )
        self._daemons.wait(
            lambda: self.client("scontrol", "ping", check=False).returncode == 0, what="slurmctld answers"
        )

    def stop_controller(self) -> None:
        """Stop slurmctld as an operator does; jobs go on."""
        self._daemons.end("slurmctld")

    def kill_controller(self) -> None:
        """Kill slurmctld; jobs go on, and it may not remember what happened in its last seconds."""
        self._daemons.end("slurmctld", signal.SIGKILL)

    def lose_jobs(self) -> None:
        """Kill slurmctld and start it without what it knew of jobs."""
        self.kill_controller()
        shutil.rmtree(self.folder / "state")
        (self.folder / "state").mkdir()
        self.start_controller()
        self.start_node()

    def freeze_controller(self) -> None:
        """Let slurmctld take connections without answering."""
        self._daemons.send("slurmctld", signal.SIGSTOP)

    def thaw_controller(self) -> None:
        """Undo `freeze_controller`."""
        self._daemons.send("slurmctld", signal.SIGCONT)

    def start_node(self) -> None:
        """Return when the node takes jobs."""
        if not self._daemons.is_running("slurmd"):
            program = require_program("slurmd", install=PACKAGES)
            self._daemons.launch("slurmd", program, "-D", "-N", self.node, "-f", str(self.config))
        if self.node_state().startswith(("drain", "drng")):
            self.client("scontrol", "update", f"nodename={self.node}", "state=resume")
        self._daemons.wait(
            lambda: self.node_state().rstrip("*") in ("idle", "mix", "alloc"), what="the node takes jobs"
        )

    def drain_node(self) -> None:
        """Let the node take no more jobs."""
        self.client("scontrol", "update", f"nodename={self.node}", "state=drain", "reason=test")

    def cancel_jobs(self) -> None:
        """End all jobs as an operator does."""
        self.client("scancel", "--state=running", f"--user={os.getuid()}")

    def kill_node(self) -> None:
        """End slurmd and every job as a power failure does."""
        self._daemons.end("slurmd", signal.SIGKILL)
        self.kill_jobs()

    def kill_jobs(self) -> None:
        """Kill the processes of all jobs, and those that watch over them."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def processes(self) -> list[int]:
        """Return the processes of jobs and of slurmstepd."""
        daemons = self._daemons.pids()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            pid = int(path.parent.name)
            try:
                variables = path.read_bytes().split(b"\0")
            except OSError:
                continue  # It has ended, or is somebody else's.
            is_ours = any(each.startswith(b"SLURM_CONF=" + os.fsencode(self.folder)) for each in variables)
            if is_ours and pid not in daemons and _is_of_a_job(pid, variables):
                found.append(pid)
        return found

    # --- what its clients do ---

    def client(self, *command: str, check: bool = True, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one of Slurm's commands."""
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
            env={**os.environ, "SLURM_CONF": str(self.config)},
        )

    def jobs(self, states: str = "pending,running,completing") -> list[str]:
        """Return ``id name state`` of the jobs in some states."""
        listed = self.client("squeue", "-h", "-r", "-t", states, "-o", "%i %j %T").stdout
        return sorted(listed.splitlines())

    def node_state(self) -> str:
        """Return the node's state in sinfo's short form."""
        return self.client("sinfo", "-h", "-p", "debug", "-o", "%t", check=False).stdout.strip()

    def programs_through(self, port: int) -> Path:
        """Return a directory with the commands of a client that reaches the controller at another port."""
        folder = self.folder / f"bin-{port}"
        if not folder.is_dir():
            folder.mkdir()
            config = folder / "slurm.conf"
            own = f"SlurmctldPort={self.controller_port}"
            config.write_text(self.config.read_text().replace(own, f"SlurmctldPort={port}"))
            for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
                program = folder / name
                program.write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {shutil.which(name)} "$@"\n')
                program.chmod(0o755)
        return folder

    # --- how it is done ---

    def _start_munge(self, program: str) -> None:
        key = self.folder / "munge" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        # --force: the directory may be below one that everybody can write to.
        self._daemons.launch(
            "munged",
            program,
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge/munge.sock",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--seed-file={self.folder}/munge/munged.seed",
            "--num-threads=2",
        )
        self._daemons.wait((self.folder / "munge" / "munge.sock").exists, what="munged answers")

    def _start_database(self) -> None:
        data, user, run = self.folder / "mysql", self._values["user"], self.folder / "run"
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                f"--user={user}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        self._daemons.launch(
            "mariadbd",
            require_program("mariadbd", install=ACCOUNTING_PACKAGES),
            "--no-defaults",
            f"--datadir={data}",
            f"--user={user}",
            "--skip-networking",
            f"--socket={run}/mysql.sock",
            "--innodb-buffer-pool-size=64M",
        )
        admin = ["--no-defaults", f"--socket={run}/mysql.sock", "-uroot"]
        self._daemons.wait(
            lambda: self.client("mariadb-admin", *admin, "ping", check=False).returncode == 0, what="MariaDB"
        )
        self.client("mariadb", *admin, "-e", "CREATE DATABASE slurm_acct_db")
        write_database_config(self.folder, self._values)
        program = require_program("slurmdbd", install=ACCOUNTING_PACKAGES)
        # The client library takes the socket of a connection to "localhost" from this variable.
        self._daemons.launch("slurmdbd", program, "-D", env={"MYSQL_UNIX_PORT": f"{run}/mysql.sock"})
        self._daemons.wait(
            lambda: self.client("sacctmgr", "-n", "show", "cluster", check=False).returncode == 0, what="slurmdbd"
        )
        self.client("sacctmgr", "-Q", "-i", "add", "cluster", "wovetest")


def _is_of_a_job(pid: int, variables: Sequence[bytes]) -> bool:
    if any(each.startswith(b"SLURM_JOB_ID=") for each in variables):
        return True
    try:
        return b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@contextmanager
def running_slurm(*, accounting: bool = False, min_job_age: int = 300, more: str = "") -> Iterator[SlurmBed]:
    """Run a cluster in a directory for temporary files, and yield it."""
    with SlurmBed(accounting=accounting, min_job_age=min_job_age, more=more) as bed:
        yield bed


def main(arguments: Sequence[str]) -> int:
    """Run a cluster until SIGINT or SIGTERM."""
    if len(arguments) != 1:
        print("usage: python -m tests.beds.slurm DIRECTORY", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with SlurmBed(Path(arguments[0])) as bed:
        print(f"export SLURM_CONF={bed.config}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
