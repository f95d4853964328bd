"""The worker's side. An existing worker adds one import, and `run_payload` to its functions::

    from wove_arq.worker import run_payload

    class WorkerSettings:
        functions = [my_function, run_payload]
        allow_abort_jobs = True

A worker of its own is one line, either of these; see `main` and `make_settings`::

    arq wove_arq.worker.settings
    python -m wove_arq.worker --url redis://localhost:6379/0
"""

import argparse
import json
import logging.config
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arq.logs import default_log_config
from arq.worker import Function, create_worker, func

from wove.backend.carried_run import CarriedRun, execute_carried
from wove.errors import ConfigurationError
from wove_arq.connecting import to_json, to_redis_settings
from wove_arq.exchange import Outcome
from wove_arq.outcomes import asked
from wove_arq.presence import presence_of
from wove_arq.settings import DEFAULT_FUNCTION_NAME, DEFAULT_QUEUE_NAME

__all__ = ["execute", "from_json", "main", "make_settings", "payload_function", "run_payload", "to_json"]

_MODULE = "wove_arq.worker"
_DEFAULT_URL = "redis://localhost:6379/0"
URL_VARIABLE, QUEUE_VARIABLE = "WOVE_REDIS_URL", "WOVE_ARQ_QUEUE"

# The weave decides how long a task may take.
_LONGEST_JOB = 7 * 24 * 3600


async def execute(ctx: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
    """Execute a Wove payload. The outcome goes to the weave that waits for it, so ARQ has no result to keep.

    Args:
        ctx: ARQ's context of the job.
        payload: what the adapter enqueued.
    """
    redis, job_id, tries = ctx["redis"], ctx["job_id"], ctx["job_try"]
    if tries < 1:
        return  # The worker that has executed it died before it could remove the job. See `CARRIED_TRIES`.
    wanted, stream, most = asked(payload)
    presence = presence_of(redis)
    async with presence.of(job_id, redis) as is_wanted:
        # ARQ counts at Redis how often workers have taken the job.
        run = CarriedRun(wanted, first_delivery=is_wanted and tries == 1, carries=most)

        async def carry(outcome: bytes) -> bool:
            return stream is not None and await presence.exchange.say(
                Outcome(stream, job_id, run.run_id, outcome), redis
            )

        await execute_carried(run, carry)


def payload_function(name: str) -> Function:
    """Return what executes payloads under another name, for an environment with that ``function_name``.

    Args:
        name: as in the environment's ``executor_config``.
    """
    # Once more at most after a crash: a task that kills its worker must not kill them all.
    return func(execute, name=name, keep_result=0, max_tries=2)


run_payload = payload_function(DEFAULT_FUNCTION_NAME)


def from_json(data: bytes) -> dict[str, Any]:
    """Decode a job that is JSON: a ``job_deserializer``, where environments have ``job_serializer: "json"``."""
    job: dict[str, Any] = json.loads(data)
    return job


def _from_either(data: bytes) -> dict[str, Any]:
    # A pickle of ARQ's never begins with this.
    job: dict[str, Any] = from_json(data) if data.startswith(b"{") else pickle.loads(data)
    return job


def make_settings(redis_settings: Any = None, **options: Any) -> dict[str, Any]:
    """Return settings for ``arq`` and ``arq.worker.create_worker`` that suit Wove.

    Args:
        redis_settings: ARQ's ``RedisSettings``, a dict of its fields or a URL; by default ``$WOVE_REDIS_URL`` or the
            Redis on this host.
        options: any arguments of ``arq.worker.Worker``, which take the place of the defaults.

    Raises:
        ConfigurationError: a field or a part of the URL is wrong.
    """
    url = os.environ.get(URL_VARIABLE) or _DEFAULT_URL
    defaults = {
        "functions": [run_payload],
        "redis_settings": to_redis_settings(url if redis_settings is None else redis_settings),
        "queue_name": os.environ.get(QUEUE_VARIABLE) or DEFAULT_QUEUE_NAME,
        "allow_abort_jobs": True,
        "keep_result": 0,
        "poll_delay": 0.1,
        "job_timeout": _LONGEST_JOB,
        # A worker that is told to end has these seconds for its tasks before it stops them.
        "job_completion_wait": 5,
        "health_check_interval": 30,
        "job_deserializer": _from_either,
    }
    return {**defaults, **options}


def __getattr__(name: str) -> Any:
    # ARQ takes a dict as well as a class. It is made when it is asked for: nobody else's worker needs these variables.
    if name == "settings":
        return make_settings()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an ARQ worker that executes tasks of weaves, until SIGTERM or SIGINT.

    Args:
        arguments: the command line without the program; ``sys.argv`` if omitted.
    """
    options = _parser().parse_args(arguments)
    changes: dict[str, Any] = {"functions": [run_payload, *map(payload_function, options.function_name)]}
    for name in ("queue_name", "max_jobs", "poll_delay", "job_completion_wait"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    if options.json:
        changes["job_deserializer"] = from_json
    try:
        chosen = make_settings(options.url, burst=options.burst, **changes)
    except ConfigurationError as error:
        raise SystemExit(f"python -m {_MODULE}: --url: {error}") from None
    logging.config.dictConfig(default_log_config(options.verbose))
    create_worker(chosen).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}", description="Run an ARQ worker that executes tasks of weaves.", allow_abbrev=False
    )
    parser.add_argument("--url", help=f"where Redis is (default: ${URL_VARIABLE}, or {_DEFAULT_URL})")
    parser.add_argument("--queue-name", help=f"the queue (default: ${QUEUE_VARIABLE}, or {DEFAULT_QUEUE_NAME})")
    parser.add_argument(
        "--function-name",
        action="append",
        default=[],
        metavar="NAME",
        help=f"serve the environments with this function_name, besides {DEFAULT_FUNCTION_NAME!r}; may be repeated",
    )
    parser.add_argument("--max-jobs", type=int, metavar="N", help="how many tasks run at a time (default: 10)")
    parser.add_argument("--poll-delay", type=float, metavar="SECONDS", help="pause between two looks (default: 0.1)")
    parser.add_argument(
        "--job-completion-wait",
        type=int,
        metavar="SECONDS",
        help="how long tasks may go on after SIGTERM before they are stopped (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="refuse jobs that are pickled")
    parser.add_argument("--burst", action="store_true", help="end when the queue is empty")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
