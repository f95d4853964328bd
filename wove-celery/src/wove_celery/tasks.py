"""The Celery tasks that execute payloads. Importing this registers them with whichever app the worker has."""

import os
import time
from collections.abc import Mapping
from typing import Any

from celery import current_task, shared_task

from wove.integrations.recent import SECOND_COPY_SECONDS
from wove.integrations.worker import run
from wove_celery import revoking as _revoking  # noqa: F401 - registers the worker's remote-control command.
from wove_celery.first_delivery import is_first_delivery, was_sent_again
from wove_celery.presence import WoveRequest
from wove_celery.settings import DEFAULT_TASK_NAME

NAMES_VARIABLE = "WOVE_CELERY_TASK_NAMES"
# Celery knows no equal jobs: for so long, this host gives the result of an idempotency key to later tasks with it.
_ONCE_SECONDS = 3600.0


def execute(payload: Mapping[str, Any]) -> None:
    """Execute a Wove payload. The outcome goes to the weave that waits for it, so Celery has no result to keep."""
    # Such a message is acknowledged when its task begins, so it is not delivered again.
    fields = current_task.request.__dict__ if current_task else {}
    first = is_first_delivery(fields)
    if was_sent_again(fields):
        time.sleep(SECOND_COPY_SECONDS)
    run(payload, once_seconds=_ONCE_SECONDS, delivered_once=first)


def register(name: str) -> Any:
    """Register a task that executes payloads, for an environment whose ``task_name`` is not ``"wove.run"``::

        from wove_celery.worker import register

        wove_task = register("myapp.wove_task")

    Args:
        name: the name, as in the environment's ``executor_config``.

    Returns:
        The Celery task, which belongs to every app of the process.
    """
    return shared_task(execute, name=name, ignore_result=True, Request=WoveRequest)


def _names() -> list[str]:
    given = os.environ.get(NAMES_VARIABLE, "")
    return list(dict.fromkeys([DEFAULT_TASK_NAME, *(name.strip() for name in given.split(",") if name.strip())]))


for _name in _names():
    register(_name)
