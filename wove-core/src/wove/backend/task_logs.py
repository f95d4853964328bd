"""Log records of a remote task on their way to the weave, where they appear under the logger ``wove.task.<task name>``.

Forwarded are the records that a task logs at WARNING and above, to any logger, and those that it logs to ``wove.task``
or below it, at any level that this logger lets through (INFO, unless the worker sets another). Records from threads
that a task starts by itself are not known to be the task's, and stay.
"""

import contextvars
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

LOGGER = "wove.task"
_LONGEST_MESSAGE = 16 * 1024

Forward = Callable[[Mapping[str, Any]], None]

_forward: contextvars.ContextVar[Forward | None] = contextvars.ContextVar("wove_forward_logs", default=None)


class _ForwardingHandler(logging.Handler):
    """Hands the records of running tasks to whoever runs them. On the root logger while there are any."""

    def __init__(self) -> None:
        super().__init__()
        self._users = 0
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        forward = _forward.get()
        if forward is None:
            _print_unless_others_do(record)
            return
        if not _concerns_the_weave(record):
            return
        try:
            text = self.format(record)
        except Exception:  # The arguments of a record are the user's own objects.
            self.handleError(record)
            return
        forward({"level": record.levelno, "message": text[:_LONGEST_MESSAGE], "logger": record.name})

    def attach(self) -> None:
        with self._guard:
            self._users += 1
            if self._users > 1:
                return
            logging.getLogger().addHandler(self)
            # It stays: setting a level empties the caches of all loggers.
            if logging.getLogger(LOGGER).level == logging.NOTSET:
                logging.getLogger(LOGGER).setLevel(logging.INFO)

    def detach(self) -> None:
        with self._guard:
            self._users -= 1
            if self._users:
                return
            logging.getLogger().removeHandler(self)


_handler = _ForwardingHandler()


class Forwarding:
    """Hands every log record that concerns the weave to `forward`, as the fields of a ``log`` frame, while a ``with``
    block runs.

    `forward` is called in the thread that logs and must neither wait nor raise.
    """

    # A generator would cost several times as much, for every task.
    __slots__ = ("_forward", "_token")

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __enter__(self) -> None:
        _handler.attach()
        self._token = _forward.set(self._forward)

    def __exit__(self, *raised: object) -> None:
        _forward.reset(self._token)
        _handler.detach()


def _concerns_the_weave(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name == LOGGER or record.name.startswith(f"{LOGGER}.")


def _print_unless_others_do(record: logging.LogRecord) -> None:
    # Python prints warnings where no handler exists; the one of this module must not change that for other code.
    last_resort = logging.lastResort
    if last_resort is not None and record.levelno >= last_resort.level and logging.getLogger().handlers == [_handler]:
        last_resort.handle(record)


def _forget_after_fork() -> None:
    # A forked child of a task is no run of its own; the lock may have been held by another thread.
    global _handler
    inherited, _handler = _handler, _ForwardingHandler()
    logging.getLogger().removeHandler(inherited)


os.register_at_fork(after_in_child=_forget_after_fork)
