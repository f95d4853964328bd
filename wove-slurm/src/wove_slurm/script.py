"""The batch script of a job: the payload stands in it, for the worker's standard input.

Slurm keeps a script where only its owner and the cluster's administrators can read it, unlike a command line; and
what stands there is in no environment, where a program that the task starts would find it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Slurm's own limit of a script is 4 MiB. Each element of an array gets the whole script, so that an array of large
# payloads costs the controller much more than several small ones.
LARGEST_ARRAY_SCRIPT = 256 * 1024

_END = "WOVE_PAYLOAD"
_SHELL, _LOGIN_SHELL = "#!/bin/sh", "#!/bin/bash -l"
# In a here-document whose end is not quoted.
_SPECIAL = re.compile(r"([\\$`])")


def build_script(
    payloads: Sequence[Mapping[str, Any]], *, command: str, setup: Sequence[str] = (), forget: Sequence[str] = ()
) -> str:
    """Return the script of a job, or of a job array whose elements have the indexes of their payloads.

    The worker takes the place of the shell, so that a job is one process which gets Slurm's signals itself: a child
    of the shell would outlive ``scancel``.

    Args:
        payloads: what the job executes; several make an array.
        command: starts the worker.
        setup: lines that come before; in bash, as a login shell, for there modules and environments work. A line that
            fails ends the job.
        forget: names of environment variables to be removed.
    """
    lines = [_LOGIN_SHELL if setup else _SHELL, *([f"unset {' '.join(forget)}"] if forget else [])]
    if setup:
        # What follows must not be shown in a log.
        lines += ["set -e", *setup, "{ set +ex; } 2>/dev/null"]
    if len(payloads) == 1:
        lines += [f"exec {command} --stdin <<'{_END}'", json.dumps(payloads[0])]
    else:
        lines += _of_array(payloads, command)
    return "\n".join([*lines, _END, ""])


def _of_array(payloads: Sequence[Mapping[str, Any]], command: str) -> list[str]:
    """Return lines that hold what payloads share only once: the callable of a map, above all."""
    first = payloads[0]
    shared = [key for key in first if all(key in each and each[key] == first[key] for each in payloads[1:])]
    elements = [f"{index}) own='{_quoted(payload, shared)}' ;;" for index, payload in enumerate(payloads)]
    common = _SPECIAL.sub(r"\\\1", _members({key: first[key] for key in shared}))
    # Always members on both sides: payloads share their version, and differ in their runs.
    document = f"{{{common}, $own}}"
    return ['case "$SLURM_ARRAY_TASK_ID" in', *elements, "esac", f"exec {command} --stdin <<{_END}", document]


def _quoted(payload: Mapping[str, Any], shared: Sequence[str]) -> str:
    # JSON has an apostrophe inside of texts only, where it may be written otherwise.
    own = {key: value for key, value in payload.items() if key not in shared}
    return _members(own).replace("'", "\\u0027")


def _members(part: Mapping[str, Any]) -> str:
    return json.dumps(part)[1:-1]
