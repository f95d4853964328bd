"""The worker's side, as a command of its own; see `main`. A worker that is there already gets `WovePlugin` instead::

python -m wove_temporal.worker --address localhost:7233 --task-queue reports
"""

import argparse
import asyncio
import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError
from temporalio.worker import Worker

from wove.errors import ConfigurationError
from wove_temporal.plugin import WovePlugin
from wove_temporal.settings import DEFAULT_NAMESPACE, DEFAULT_TARGET_HOST, DEFAULT_TASK_QUEUE

__all__ = ["WovePlugin", "main"]

_MODULE = "wove_temporal.worker"
# What the first task would import otherwise, while its heartbeats wait.
_PRELOADED = ("cloudpickle", "http.client", "encodings.idna", "wove.backend.connections")
_CONCURRENT, _GRACE_SECONDS = 100, 30.0
# A heartbeat's answer tells a task that it was cancelled; by default the SDK holds heartbeats back for longer.
_HEARTBEAT_PAUSE = timedelta(seconds=1)

logger = logging.getLogger("wove")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a Temporal worker that executes tasks of weaves, until SIGTERM or SIGINT.

    Args:
        arguments: the command line without the program; ``sys.argv`` if omitted.

    Returns:
        The exit code: 1 where the server cannot be reached, or does not let the worker poll.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in _PRELOADED:
        importlib.import_module(name)
    try:
        _preload(options.preload)
        asyncio.run(_serve(options))
    except (ConfigurationError, ConnectionError, RuntimeError) as error:
        # The SDK raises RuntimeError for a namespace that is not there, and for a configuration file that is wrong.
        print(f"{_MODULE}: {error}", file=sys.stderr)
        return 1
    return 0


def _preload(names: Sequence[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # The module is there, and something that it needs is not.
            raise ConfigurationError(
                f"--preload {name}: there is no module {error.name!r} here. Install it, or set PYTHONPATH."
            ) from error


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    connecting = _connecting(options)
    try:
        client = await Client.connect(**connecting)
    except (RuntimeError, RPCError) as error:
        raise ConnectionError(
            f"Temporal at {connecting['target_host']} cannot be reached. Is the server running there (temporal server "
            f"start-dev), and does it want --tls or an API key? The SDK says: {error}"
        ) from error
    worker = Worker(
        client,
        task_queue=options.task_queue,
        plugins=[WovePlugin()],
        max_concurrent_activities=options.max_concurrent_activities,
        max_heartbeat_throttle_interval=_HEARTBEAT_PAUSE,
        graceful_shutdown_timeout=timedelta(seconds=options.graceful_shutdown_timeout),
    )
    running = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(stopped.wait())
    logger.info("A worker polls the task queue %r at %s", options.task_queue, connecting["target_host"])
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        await worker.shutdown()
    await running


def _connecting(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``Client.connect``: from the command line, Temporal's variables and its file."""
    connecting: dict[str, Any] = {"target_host": DEFAULT_TARGET_HOST, "namespace": DEFAULT_NAMESPACE}
    connecting |= ClientConfig.load_client_connect_config(options.profile)
    given = {"target_host": options.address, "namespace": options.namespace, "tls": options.tls or None}
    return connecting | {key: value for key, value in given.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description="Run a Temporal worker that executes tasks of weaves.",
        epilog="Address, namespace, API key and certificates may also come from Temporal's variables, such as "
        "TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and TEMPORAL_TLS_CLIENT_CERT_PATH, and from its "
        "configuration file: https://docs.temporal.io/develop/environment-configuration",
        allow_abbrev=False,
    )
    parser.add_argument("--address", metavar="HOST:PORT", help=f"the server (default: {DEFAULT_TARGET_HOST})")
    parser.add_argument("--namespace", help=f"default: {DEFAULT_NAMESPACE}")
    parser.add_argument("--task-queue", default=DEFAULT_TASK_QUEUE, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--tls", action="store_true", help="encrypt the connection")
    parser.add_argument("--profile", help="the profile in Temporal's configuration file")
    parser.add_argument(
        "--max-concurrent-activities",
        type=int,
        default=_CONCURRENT,
        metavar="N",
        help="how many tasks run at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--graceful-shutdown-timeout",
        type=float,
        default=_GRACE_SECONDS,
        metavar="SECONDS",
        help="how long running tasks may take after SIGTERM before they are stopped (default: %(default)g)",
    )
    parser.add_argument(
        "--preload", action="append", default=[], metavar="MODULE", help="import this at the start; may be repeated"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
