"""Environment variables: which of them Slurm's programs get, and which of them reach a job."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wove.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = ("ALL", "NONE", "NIL")
# What a job needs to find programs and to read texts. None of it is a secret.
_HARMLESS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
# How Slurm's programs find the controller and prove who asks.
_CONNECTION = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SACK_JWKS", "SACK_KEY")
# Inside of a job there are variables of that job, and in some shells ones that change what the programs print or do.
_OF_SLURM = ("SLURM_", "SLURMD_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SCONTROL_", "SRUN_", "SALLOC_")
# Where sites let their users choose a default.
_DEFAULTS = ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_TIMELIMIT")


@dataclass(frozen=True, slots=True)
class Variables:
    """What a job finds in its environment, beside Slurm's own variables.

    Attributes:
        whole: ``"ALL"``: everything that is here; ``"NONE"`` or ``"NIL"``: what the user's login shell sets. None: a
            few harmless ones and those that follow.
        passed: names of variables whose values come from here.
        given: further variables with their values.
    """

    whole: str | None = None
    passed: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict, repr=False)

    def missing(self) -> list[str]:
        """Return the names that have no value here."""
        return [name for name in self.passed if name not in os.environ]

    def check_conf(self, *, where: str) -> None:
        """Make sure that there is a file where ``SLURM_CONF`` points, if it is set. Slurm's programs would wait a
        minute for it to appear.

        Args:
            where: how messages begin.

        Raises:
            ConfigurationError: there is none, or it cannot be seen; names the path.
        """
        for found in (client_variables(), self.of_sbatch()):
            path = found.get("SLURM_CONF")
            if path is None:
                continue
            try:
                os.stat(path)
            except OSError as error:
                raise ConfigurationError(
                    f"{where}: SLURM_CONF is {path!r}: {error.strerror or error}. Set it to the path of the cluster's "
                    "slurm.conf, or unset it where Slurm finds its configuration without."
                ) from None

    @property
    def option(self) -> str:
        """The value of ``--export``.

        Slurm makes a login shell for any list of names, which takes up to seconds, so sbatch itself gets the
        environment that jobs are to have, and passes on all of it.
        """
        return self.whole or "ALL"

    def of_sbatch(self) -> dict[str, str]:
        """Return the environment of sbatch."""
        if self.whole == "ALL":
            return client_variables()
        names = (*_HARMLESS, *_CONNECTION, *_DEFAULTS, *self.passed)
        return {name: os.environ[name] for name in names if name in os.environ} | dict(self.given)

    def to_forget(self) -> list[str]:
        """Return the names that only sbatch needs, and a job must not see."""
        return [name for name in ("SLURM_JWT", "SACK_KEY") if name in os.environ]


def client_variables() -> dict[str, str]:
    """Return the environment of Slurm's other programs: this process's, without what changes their ways."""
    kept = (*_CONNECTION, *_DEFAULTS)
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(_OF_SLURM)}


def check_export(value: object) -> Variables:
    """Take a list of names, a mapping of names to values, or what ``sbatch --export`` takes."""
    if isinstance(value, str):
        if value.upper() in _WHOLE:
            return Variables(whole=value.upper())
        value = [each.strip() for each in value.split(",")]
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        pairs = [_pair(each) for each in value]
    else:
        pairs = [(None, None)]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name, _ in pairs):
        raise ValueError("names of variables, a dict of names and values, or 'ALL', 'NONE' or 'NIL'")
    if not all(text is None or (isinstance(text, str) and "\0" not in text) for _, text in pairs):
        raise ValueError("names of variables; a value is a text, or None for the one that is set here")
    return Variables(
        passed=tuple(name for name, text in pairs if text is None),
        given={name: text for name, text in pairs if text is not None},
    )


def _pair(each: object) -> tuple[object, object]:
    if isinstance(each, str) and "=" in each:
        name, _, text = each.partition("=")
        return name, text
    return each, None
