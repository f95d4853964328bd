"""An order: everything that delivery needs to know about one call of `ExecutorRuntime.run_task`."""

import os
import re
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from wove.environment.idempotency import resolve_key
from wove.environment.runs import DEAD_JOB_GRACE_SECONDS, RunPolicy
from wove.errors import ConfigurationError
from wove.options import TASK_DEFAULTS, OrphanPolicy, TaskOptions

# How long `delivery_cancel_mode="require_ack"` waits for the worker or the backend to confirm a cancel.
ACK_SECONDS = 5.0

_NOT_IN_IDS = re.compile(r"[^a-z0-9]+")
_LONGEST_SLUG = 24
# As many tasks, and as many sets of options, are remembered.
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt at a task, as the weave orders it.

    Attributes:
        environment: the environment's name.
        task: the task's name.
        frame: the ``run_task`` frame, but for its ``run_id``.
        policy: how it is delivered.
        key: equal keys in flight share one run; None shares nothing.
        work: the same for all attempts at one task or item; earlier ones are cancelled before a later one starts.
        weave: the weave's id, for plugins.
    """

    environment: str
    task: str
    frame: Mapping[str, Any]
    policy: RunPolicy
    key: Hashable | None = None
    work: Hashable = None
    weave: str = ""

    @property
    def label(self) -> str:
        """The order in the words of an error message."""
        return f"Task {self.task!r} in environment {self.environment!r}"


def new_run_id(task_name: str) -> str:
    """Return an id for a run that every backend takes as it is: ``[a-z0-9-]``, at most 63 characters.

    It starts with the task's name, as far as that is possible, and ends with 128 random bits.
    """
    return f"{_slug(task_name)}-{os.urandom(16).hex()}"


@lru_cache(maxsize=_REMEMBERED)
def _slug(task_name: str) -> str:
    # RQ accepts only [A-Za-z0-9_-] in a job id; Kubernetes names must be lower-case and end at 63 characters.
    slug = _NOT_IN_IDS.sub("-", task_name.lower())[: _LONGEST_SLUG + 1].strip("-")[:_LONGEST_SLUG].rstrip("-")
    return slug or "task"


def make_order(
    *,
    environment: str,
    task_name: str,
    task_func: Callable[..., Any],
    task_args: Mapping[str, Any],
    task_info: Mapping[str, Any],
    options: TaskOptions,
    grace: float = DEAD_JOB_GRACE_SECONDS,
    scope: Hashable = None,
    now: Callable[[], float] = time.time,
) -> Order:
    """Build the order for one attempt.

    Args:
        environment: the environment's name.
        task_name: the task's name; also the frame's ``task_id``.
        task_func: the task's callable.
        task_args: its arguments by name.
        task_info: ``attempt``, ``item``, ``trace`` and ``weave``, each optional.
        options: the effective options, complete.
        grace: seconds that a final event may take after the backend has said that the job is over.
        scope: where an idempotency key is valid.
        now: unix seconds, for the deadline that the worker sees.

    Raises:
        OptionError: the idempotency key cannot be made.
    """
    key = resolve_key(options["delivery_idempotency_key"], task_args, task=task_name)
    timeout = options["delivery_timeout"]
    terms = _terms(
        timeout,
        options["delivery_heartbeat_seconds"],
        options["delivery_cancel_mode"],
        options["delivery_orphan_policy"],
        grace,
    )
    item = task_info.get("item")
    weave = str(task_info.get("weave") or "")
    frame = {
        "type": "run_task",
        "task_id": task_name,
        "task_name": task_name,
        "callable": task_func,
        "args": dict(task_args),
        "delivery": dict(terms.delivery) if key is None else {**terms.delivery, "delivery_idempotency_key": key},
        "attempt": task_info.get("attempt", 1),
        "item": item,
        "deadline": None if timeout is None else now() + timeout,
        "trace": dict(task_info.get("trace") or {}),
        "weave": weave,
    }
    return Order(
        environment=environment,
        task=task_name,
        frame=frame,
        policy=terms.policy,
        key=None if key is None else (scope, key),
        work=(weave, environment, task_name, item),
        weave=weave,
    )


def dead_job_grace(config: Mapping[str, Any], environment: str) -> float:
    """Return the environment's ``dead_job_grace`` in seconds.

    Raises:
        ConfigurationError: it is no number of at least 0.
    """
    value = config.get("dead_job_grace", DEAD_JOB_GRACE_SECONDS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigurationError(
            f"Environment {environment!r}: executor_config 'dead_job_grace' must be a finite number of seconds, "
            f"at least 0, not {value!r}."
        )
    return float(value)


class _Terms(NamedTuple):
    """What a set of options says about delivery, for both sides.

    Attributes:
        policy: what the weave's side goes by.
        delivery: the policy fields of the frame: those that differ from their default, but for the key.
    """

    policy: RunPolicy
    delivery: Mapping[str, Any]


@lru_cache(maxsize=_REMEMBERED, typed=True)
def _terms(
    timeout: float | None, heartbeat: float | None, cancel_mode: str, orphan: OrphanPolicy, grace: float
) -> _Terms:
    given = {
        "delivery_timeout": timeout,
        "delivery_cancel_mode": cancel_mode,
        "delivery_heartbeat_seconds": heartbeat,
        "delivery_orphan_policy": orphan,
    }
    defaults: Mapping[str, Any] = TASK_DEFAULTS
    return _Terms(
        RunPolicy(
            timeout=timeout,
            heartbeat=heartbeat,
            ack=ACK_SECONDS if cancel_mode == "require_ack" else None,
            orphan=orphan,
            grace=grace,
        ),
        {name: value for name, value in given.items() if value != defaults[name]},
    )
