"""The worker's side. Any existing worker can execute tasks, without any code, once this distribution is installed::

    rq worker --url redis://localhost:6379/0

It is faster with a worker class that has everything loaded before it forks::

    rq worker --worker-class wove_rq.worker.PreloadingWorker

A worker of its own is one line, and takes all options of ``rq worker``; see ``main``::

    python -m wove_rq.worker --url redis://localhost:6379/0
"""

import argparse
import gc
import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

from redis.connection import AbstractConnection
from rq import Worker, get_current_job

from wove.integrations.worker import run
from wove_rq.presence import sign_in

if TYPE_CHECKING:
    from rq import Queue
    from rq.job import Job

    from wove_rq.spare import Spares

__all__ = ["PreloadingWorker", "execute", "main"]

_MODULE = "wove_rq.worker"
PRELOAD_VARIABLE = "WOVE_RQ_PRELOAD"
SPARE_VARIABLE = "WOVE_RQ_SPARE"
# What a job needs beyond this module's own imports, and would otherwise import in its own process.
_PRELOADED = (
    "cloudpickle",
    "http.client",
    "encodings.idna",
    "asyncio",
    "wove.backend.worker_run",
    "wove.backend.connections",
    "rq.executions",
    "rq.registry",
    "rq.results",
)


def execute(payload: Mapping[str, Any]) -> None:
    """Execute a Wove payload. The outcome goes to the weave that waits for it, so RQ has no result to keep."""
    job = get_current_job()
    if job is None:
        run(payload)
        return
    first = sign_in(job)
    # Without retries, RQ gives up a job whose process or worker has died.
    run(payload, first_delivery=first, delivered_once=first and job.retries_left is None)


class PreloadingWorker(Worker):
    """RQ's worker with everything loaded that a task of Wove needs, so that no job has to do it after the fork.

    The environment variable ``WOVE_RQ_PRELOAD`` names more modules, separated by commas: those of the project's tasks.

    The process of the next job, its spare, is forked while there is none, or while another one runs. Still each job has
    a process of its own. Where a spare cannot be had, cannot be given the job, or is not as ready as a new process
    would be, RQ forks one.

    Attributes:
        keeps_spare: False lets every process be forked when its job is there; ``WOVE_RQ_SPARE=0`` in the environment
            does the same.
    """

    keeps_spare = True
    _spares: "Spares | None" = None

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Load the modules, then start as RQ does."""
        for name in (*_PRELOADED, *_asked_for()):
            importlib.import_module(name)
        # The name and version of the client library, which each connection would look up in the package's metadata, and
        # tell Redis: that takes longer than all the rest, and every job has connections of its own. Older versions of
        # redis-py do not know this argument, and do not look.
        if "driver_info" in inspect.signature(AbstractConnection).parameters:
            self.connection.connection_pool.connection_kwargs.setdefault("driver_info", None)
        gc.collect()
        # What is there already is shared with the children as long as their collector leaves it alone.
        gc.freeze()
        super().bootstrap(*args, **kwargs)
        if self.keeps_spare and os.environ.get(SPARE_VARIABLE) != "0":
            self._begin_spares()

    def fork_work_horse(self, job: "Job", queue: "Queue") -> None:
        """Let the spare be the work horse, or fork one as RQ does; then fork the next spare, while the job runs."""
        if self._spares is None or not self._spares.hand_over(job, queue):
            super().fork_work_horse(job, queue)
        if self._spares is not None:
            self._spares.prepare()

    def teardown(self) -> None:
        """End the spare, and the worker as RQ does."""
        if self._spares is not None:
            self._spares.dismiss()
        super().teardown()  # type: ignore[no-untyped-call]

    def _begin_spares(self) -> None:
        # Here, because a job on any worker imports this module, and needs none of it.
        from wove.backend.rehearsal import rehearsal_payload, rehearse
        from wove_rq.spare import Spares, is_possible

        # A class that is derived from several may have another way to start its processes.
        if super().fork_work_horse != MethodType(Worker.fork_work_horse, self) or not is_possible(self):
            return
        payload = rehearsal_payload()

        def warm_up() -> None:
            # Opens the connection that the job will need first.
            self.connection.ping()
            rehearse(payload)

        self._spares = Spares(self, warm_up)
        self._spares.prepare()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an RQ worker that executes tasks of weaves, until SIGTERM or SIGINT.

    Args:
        arguments: the command line without the program; ``sys.argv`` if omitted.
    """
    from rq.cli.cli import main as rq
    from rq.cli.workers import worker

    options, others = _parser().parse_known_args(arguments)
    if options.preload:
        names = [*_asked_for(), *options.preload]
        os.environ[PRELOAD_VARIABLE] = ",".join(names)
    if options.no_spare:
        os.environ[SPARE_VARIABLE] = "0"
    rq.add_command(worker)
    rq(args=["worker", *_defaults(others), *others], prog_name=f"python -m {_MODULE}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description="Run an RQ worker that executes tasks of weaves.",
        usage="%(prog)s [--url URL] [--preload MODULE] [--no-spare] [any option of `rq worker`] [queue ...]",
        epilog="It is `rq worker` with --worker-class wove_rq.worker.PreloadingWorker and --job-monitoring-interval 5 "
        "where these are not given. Queues: the names in the environments' queue_name; by default 'default'.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help=f"import this once instead of in every job; may be repeated (also: ${PRELOAD_VARIABLE}, with commas)",
    )
    parser.add_argument(
        "--no-spare",
        action="store_true",
        help=f"fork the process of a job when the job is there, not ahead of it (also: ${SPARE_VARIABLE}=0)",
    )
    return parser


def _asked_for() -> list[str]:
    return [name.strip() for name in os.environ.get(PRELOAD_VARIABLE, "").split(",") if name.strip()]


def _defaults(others: Sequence[str]) -> list[str]:
    """Return options for a worker that serves Wove, as far as the command line leaves them open."""
    defaults = []
    if not any(each.startswith(("-w", "--worker-class")) for each in others):
        defaults += ["--worker-class", f"{_MODULE}.{PreloadingWorker.__name__}"]
    if not any(each.startswith("--job-monitoring-interval") for each in others):
        # A job whose worker died is given up by RQ a minute after the last sign of life, instead of one and a half.
        defaults += ["--job-monitoring-interval", "5"]
    return defaults


if __name__ == "__main__":
    sys.exit(main())
