"""Runs a worker service: ``python -m wove.services http|websocket|grpc``."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from wove.environment.network_settings import is_local
from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove.security import NetworkExecutorSecurity
from wove.services.settings import MIB, ServiceSettings

_PORTS = {"http": 8900, "websocket": 8900, "grpc": 50051}
_EXAMPLES = """examples:
  python -m wove.services http
      for clients on this machine; whoever can connect can run code
  python -m wove.services http --host 0.0.0.0 --security env:WOVE_WORKER_SECRET --tls-cert cert.pem --tls-key key.pem
      for other machines: requests are signed with the secret in the environment variable WOVE_WORKER_SECRET
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker service until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    options.port = _PORTS[options.transport] if options.port is None else options.port
    options.max_body_bytes = options.max_body_mib * MIB
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        security = _security(options.security)
        _check_safety(options, security)
        return _serve(options, security)
    except (ConfigurationError, MissingDispatchFeatureError) as error:
        print(f"wove.services: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"wove.services: cannot serve on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1


def _serve(options: argparse.Namespace, security: NetworkExecutorSecurity) -> int:
    if options.transport == "grpc":
        from wove.services.grpc_server import serve_grpc

        return serve_grpc(options, security)
    from wove.services.asgi_server import serve_asgi

    return serve_asgi(options, security)


def _security(text: str) -> NetworkExecutorSecurity:
    config: object = text
    if text.startswith("{"):
        try:
            config = json.loads(text)
        except ValueError:
            raise ConfigurationError("--security: what begins with '{' must be a JSON object.") from None
    return NetworkExecutorSecurity.from_config(config)


def _port(text: str) -> int:
    # getaddrinfo takes a larger one modulo 65536.
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, not {text!r}")
    return int(text)


def _check_safety(options: argparse.Namespace, security: NetworkExecutorSecurity) -> None:
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ConfigurationError("--tls-cert and --tls-key belong together.")
    for path in (options.tls_cert, options.tls_key):
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(f"{path} cannot be read.")
    if options.insecure or is_local(options.host):
        return
    if not security.enabled:
        raise ConfigurationError(
            f"On {options.host} other machines can reach the service, and whoever reaches it can run code: "
            "give --security env:NAME_OF_A_VARIABLE. For development only: --insecure."
        )
    if not options.tls_cert and security.type == "bearer":
        raise ConfigurationError(
            "Without TLS a bearer token can be read on its way: give --tls-cert and --tls-key. "
            "Behind a proxy that does TLS: --insecure."
        )
    if not options.tls_cert:
        print("wove.services: without --tls-cert, tasks and results can be read on their way.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    given = ServiceSettings()
    parser = argparse.ArgumentParser(
        prog="python -m wove.services",
        description="A worker service: executes the tasks that Wove's network executors send.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("transport", choices=tuple(_PORTS), help="what clients speak; http and websocket share one server")
    add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    add("--port", type=_port, help="0 takes a free one (default: 8900; grpc: 50051)")
    add("--path", default="/wove/tasks", help="of the URL (default: %(default)s)")
    add("--security", default="none", help="none, env:NAME, or the JSON of a security dict (default: %(default)s)")
    add("--workers", type=int, help="processes that execute tasks (default: one per processor)")
    add("--threads", type=int, default=given.threads, help="synchronous tasks per process (default: %(default)s)")
    add("--beat", type=float, default=given.beat, help="seconds between signs of life (default: %(default)g)")
    add(
        "--grace",
        type=float,
        default=given.grace,
        help="seconds for running tasks at the end (default: %(default)g)",
    )
    add(
        "--max-body-mib",
        type=int,
        default=given.max_body_bytes // MIB,
        help="largest command (default: %(default)s)",
    )
    add("--tls-cert", help="PEM file with the certificate chain")
    add("--tls-key", help="PEM file with its key")
    add("--insecure", action="store_true", help="allow other machines without --security or TLS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
