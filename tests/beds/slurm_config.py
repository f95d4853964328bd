"""The configuration of a Slurm cluster of one node."""

from collections.abc import Mapping
from pathlib import Path

HOST = "127.0.0.1"
_CONFIG = """\
ClusterName=wovetest
SlurmctldHost={node}({host})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdTimeout={node_timeout}
MessageTimeout={message_timeout}
KillWait={kill_wait}
MinJobAge={min_job_age}
MailProg=/bin/true
NodeName={node} NodeAddr={host} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={node} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={node} MaxTime=1 State=UP
"""
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={database_port}
AccountingStoragePass={folder}/munge/munge.sock
AccountingStoreFlags=job_script,job_env
"""
_DATABASE_CONFIG = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
DbdHost=localhost
DbdAddr={host}
DbdPort={database_port}
CommunicationParameters=NoInAddrAny
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def write_config(folder: Path, values: Mapping[str, object], *, accounting: bool, more: str) -> None:
    """Write ``slurm.conf`` and what it refers to, and make the directories that it names.

    Args:
        folder: of the cluster.
        values: what is filled in.
        accounting: whether there is an accounting database.
        more: further lines of slurm.conf.
    """
    for name in ("run", "log", "state", "spool", "munge"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    # Other users of a cluster can reach these directories, too: what protects the files is up to Slurm.
    folder.chmod(0o755)
    text = _CONFIG + (_ACCOUNTING if accounting else "AccountingStorageType=accounting_storage/none\n")
    (folder / "slurm.conf").write_text(text.format(**values) + more)
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n")
    (folder / "plugstack.conf").write_text("")


def write_database_config(folder: Path, values: Mapping[str, object]) -> None:
    """Write ``slurmdbd.conf``, for nobody else to read: slurmdbd insists."""
    config = folder / "slurmdbd.conf"
    config.write_text(_DATABASE_CONFIG.format(**values))
    config.chmod(0o600)
