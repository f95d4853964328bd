"""The task that executes payloads, registered with whatever broker the worker has."""

import asyncio
import logging
import os
from typing import Annotated, Any

from taskiq import Context, NoResultError, TaskiqDepends, async_shared_broker
from taskiq.result_backends.dummy import DummyResultBackend

from wove.integrations.recent import SECOND_COPY_SECONDS
from wove.integrations.worker import arun
from wove_taskiq.listening import DirectListBroker
from wove_taskiq.settings import AGAIN_LABEL, DEFAULT_TASK_NAME, FIRST_LABEL

NAMES_VARIABLE = "WOVE_TASKIQ_TASKS"
# Taskiq knows no equal jobs: for so long, this host gives the result of an idempotency key to later tasks with it.
_ONCE_SECONDS = 3600.0

_names: set[str] = set()


async def execute(payload: dict[str, Any], context: Annotated[Context, TaskiqDepends()]) -> None:
    """Execute a Wove payload. The outcome goes to the weave that waits for it, so Taskiq has no result to keep.

    Args:
        payload: what the adapter sent.
        context: Taskiq's.

    Raises:
        NoResultError: the broker keeps results, and shall not keep one of this.
    """
    labels = context.message.labels
    first = isinstance(context.broker, DirectListBroker) and bool(labels.get(FIRST_LABEL))
    if labels.get(AGAIN_LABEL):
        await asyncio.sleep(SECOND_COPY_SECONDS)
    await arun(payload, once_seconds=_ONCE_SECONDS, delivered_once=first)
    if not isinstance(context.broker.result_backend, DummyResultBackend):
        raise NoResultError


def register(task_name: str) -> None:
    """Let workers execute payloads under a name, for environments with that ``task_name``. Idempotent."""
    if task_name not in _names:
        _names.add(task_name)
        async_shared_broker.task(task_name=task_name)(execute)


class _Unremarkable(logging.Filter):
    """Drops the receiver's warning that a task has no result: ours never have one."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        is_ours = isinstance(arguments, tuple) and bool(arguments) and arguments[0] in _names
        return not (is_ours and "skipped setting result" in str(record.msg))


logging.getLogger("taskiq.receiver.receiver").addFilter(_Unremarkable())
for _name in (DEFAULT_TASK_NAME, *os.environ.get(NAMES_VARIABLE, "").split(",")):
    if _name.strip():
        register(_name.strip())
