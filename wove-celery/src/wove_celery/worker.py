"""The worker's side. An existing worker adds one import, without any code::

    celery -A myproject worker -I wove_celery.worker

A worker of its own is one line::

    python -m wove_celery.worker -b redis://localhost:6379/0

It takes all options of ``celery worker``; see ``main``.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from celery import Celery
from celery.app.utils import find_app

from wove_celery.settings import DEFAULT_APP_NAME
from wove_celery.tasks import NAMES_VARIABLE, execute, register

__all__ = ["execute", "main", "register"]

_MODULE = "wove_celery.worker"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a Celery worker that executes tasks of weaves, until SIGTERM or SIGINT.

    Args:
        arguments: the command line without the program; ``sys.argv`` if omitted.
    """
    options, others = _parser().parse_known_args(arguments)
    if options.task_name:
        names = [*os.environ.get(NAMES_VARIABLE, "").split(","), *options.task_name]
        os.environ[NAMES_VARIABLE] = ",".join(name for name in names if name)
    for name in options.task_name:
        register(name)
    app = _given_app(options.app, options.broker) if options.app else _new_app(options.broker)
    status = app.worker_main(["worker", "--include", _MODULE, *_defaults(options.app, others), *others])
    return int(status or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description="Run a Celery worker that executes tasks of weaves.",
        epilog="Every other option is one of `celery worker`, for example -Q reports, -c 4, -P threads, -l INFO.",
        allow_abbrev=False,
    )
    parser.add_argument("-A", "--app", help="the project's own app, e.g. myproject.celery:app; one is made if omitted")
    parser.add_argument(
        "-b", "--broker", help="the broker's URL, e.g. redis://localhost:6379/0 (default: $CELERY_BROKER_URL)"
    )
    parser.add_argument(
        "--task-name",
        action="append",
        default=[],
        metavar="NAME",
        help="serve the environments with this task_name, besides 'wove.run'; may be repeated",
    )
    return parser


def _given_app(path: str, broker: str | None) -> Celery:
    try:
        app = find_app(path)
    except Exception as error:  # An import runs the project's own code.
        raise SystemExit(
            f"python -m {_MODULE}: -A {path} leads to no Celery app ({type(error).__name__}: {error}). "
            "Give an import path such as myproject.celery:app."
        ) from error
    if broker:
        app.conf.broker_url = broker
    return app


def _new_app(broker: str | None) -> Celery:
    broker = broker or os.environ.get("CELERY_BROKER_URL")
    if not broker:
        raise SystemExit(
            f"python -m {_MODULE}: which broker? Give its URL, e.g. -b redis://localhost:6379/0, "
            "or the project's app with -A, or set CELERY_BROKER_URL."
        )
    app = Celery(DEFAULT_APP_NAME, broker=broker)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        # A job that waits in the broker can go to any worker; one that was prefetched by a busy one cannot.
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
    )
    return app


def _defaults(app: str | None, others: Sequence[str]) -> list[str]:
    """Return options for a worker that serves Wove alone, as far as the command line leaves them open."""
    if app:
        return []
    # Neither is of use here, and the first costs a second at start.
    defaults = ["--without-mingle", "--without-gossip"]
    if not any(each.startswith(("-n", "--hostname")) for each in others):
        # Two workers of one name on one host would confuse whoever addresses them.
        defaults += ["-n", f"wove-{os.getpid()}@{socket.gethostname()}"]
    return defaults


if __name__ == "__main__":
    sys.exit(main())
