"""The worker's side. An existing worker adds this module to those that it imports, and no code::

    taskiq worker myproject.jobs:broker wove_taskiq.worker

A worker of its own is one line, and takes all options of ``taskiq worker``; see `main`::

    python -m wove_taskiq.worker --url redis://localhost:6379/0
"""

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis
from taskiq import AsyncBroker

from wove_taskiq.listening import DirectListBroker, LastingListBroker, LastingStreamBroker
from wove_taskiq.settings import DEFAULT_QUEUE_NAME, DEFAULT_TASK_NAME
from wove_taskiq.tasks import NAMES_VARIABLE, execute, register

__all__ = ["execute", "main", "make_broker", "register"]

_MODULE = "wove_taskiq.worker"
_DEFAULT_URL = "redis://localhost:6379/0"
URL_VARIABLE, QUEUE_VARIABLE, STREAM_VARIABLE = "WOVE_REDIS_URL", "WOVE_TASKIQ_QUEUE", "WOVE_TASKIQ_STREAM"
# Set for the processes that `main` starts, of which it knows that they take nothing in advance.
_DIRECT_VARIABLE = "WOVE_TASKIQ_DIRECT"


class TidyStreamBroker(LastingStreamBroker):
    """A stream broker that removes what it acknowledges; taskiq-redis leaves it in the stream."""

    def _ack_generator(self, id: str, queue_name: str) -> Callable[[], Awaitable[None]]:
        async def acknowledge() -> None:
            async with Redis(connection_pool=self.connection_pool) as redis:
                await redis.xack(queue_name, self.consumer_group_name, id)
                await redis.xdel(queue_name, id)

        return acknowledge


def make_broker() -> AsyncBroker:
    """Return the broker that ``WOVE_REDIS_URL``, ``WOVE_TASKIQ_QUEUE`` and ``WOVE_TASKIQ_STREAM`` describe, for
    ``taskiq worker wove_taskiq.worker:make_broker wove_taskiq.worker``.
    """
    url = os.environ.get(URL_VARIABLE) or _DEFAULT_URL
    queue = os.environ.get(QUEUE_VARIABLE) or DEFAULT_QUEUE_NAME
    if os.environ.get(STREAM_VARIABLE):
        # "0": also what was sent before there was a worker.
        return TidyStreamBroker(url, queue_name=queue, consumer_id="0")
    kind = DirectListBroker if os.environ.get(_DIRECT_VARIABLE) else LastingListBroker
    return kind(url, queue_name=queue)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a Taskiq worker that executes tasks of weaves, until SIGTERM or SIGINT.

    Args:
        arguments: the command line without the program; ``sys.argv`` if omitted.
    """
    from taskiq.cli.worker.cmd import WorkerCMD

    options, others = _parser().parse_known_args(arguments)
    changes = {
        URL_VARIABLE: options.url,
        QUEUE_VARIABLE: options.queue_name,
        STREAM_VARIABLE: "1" if options.stream else None,
        NAMES_VARIABLE: ",".join(options.task_name),
        _DIRECT_VARIABLE: None if any(each.startswith("--max-p") for each in others) else "1",
    }
    os.environ.pop(_DIRECT_VARIABLE, None)
    # The processes that Taskiq starts make their own brokers.
    os.environ.update({name: value for name, value in changes.items() if value})
    for name in options.task_name:
        # A process that is forked does not import the tasks again.
        register(name)
    return WorkerCMD().exec([f"{_MODULE}:{make_broker.__name__}", _MODULE, *_defaults(others), *others]) or 0


def _defaults(others: Sequence[str]) -> list[str]:
    """Return options for a worker that serves Wove, as far as the command line leaves them open."""
    if any(each.startswith("--max-async-tasks") for each in others):
        return []
    # Taskiq's own, 100, is for coroutines; a process that has so many threads at work gets slower.
    return ["--max-async-tasks", "10"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description="Run a Taskiq worker that executes tasks of weaves.",
        usage="%(prog)s [--url URL] [--stream] [--queue-name NAME] [--task-name NAME] [any option of `taskiq worker`]",
        allow_abbrev=False,
    )
    parser.add_argument("--url", help=f"where Redis is (default: ${URL_VARIABLE}, or {_DEFAULT_URL})")
    parser.add_argument("--stream", action="store_true", help="serve environments with 'stream': True")
    parser.add_argument("--queue-name", metavar="NAME", help=f"the queue (default: {DEFAULT_QUEUE_NAME})")
    parser.add_argument(
        "--task-name",
        action="append",
        default=[],
        metavar="NAME",
        help=f"serve the environments with this task_name, besides {DEFAULT_TASK_NAME!r}; may be repeated",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
