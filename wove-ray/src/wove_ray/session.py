"""The session with Ray, of which a process has one at most: the project's own if there is one, else made here."""

import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util import disconnect

from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove_ray.settings import CLIENT_SCHEME, DEFAULT_ADDRESS, Settings

# How long a port may take to accept a connection. Ray itself tries for minutes, and prints meanwhile.
_CONNECT_SECONDS = 3.0
# How long what accepts it may be silent.
_ANSWER_SECONDS = 5.0
# How a connection of HTTP/2 begins, and so one of gRPC: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
# A Ray Client server forks the process of a session while gRPC is at work in its own, and loses one in some ten or
# twenty: "Starting Ray client server failed". https://github.com/ray-project/ray/issues/63202
_CLIENT_ATTEMPTS = 3
_LOST_PROCESS = "Starting Ray client server failed"
_FORK_ADVICE = (
    "Its Ray Client server has lost the session's process: start the head with GRPC_ENABLE_FORK_SUPPORT=0 set."
)

# A library does not print what its workers print, starts no dashboard and is quiet; init_options take precedence.
_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.WARNING}

# Where Ray Client logs what the session's process on the head does, whenever that arrives.
_forwarded = logging.getLogger("ray.util.client.logsclient")

_lock = threading.Lock()
_holders = 0
# The address of the session that was made here, as it was given, and what tells that session from others.
_made: tuple[str, object] | None = None


def join(settings: Settings) -> bool:
    """Make sure that this process has a session with Ray, and keep one that is made here until `leave`. Blocking.

    Returns:
        Whether it is one of Ray Client.

    Raises:
        ConfigurationError: there is a session with another cluster, or none and none may be made, or Ray refuses
            init_options.
        ConnectionError: the cluster cannot be reached.
        MissingDispatchFeatureError: the address needs a package that is not installed.
    """
    global _holders, _made
    with _lock:
        if ray.is_initialized():
            _check_address(settings.address)
        else:
            if not settings.init:
                raise ConfigurationError(
                    "init is False, and this process has no session with Ray. Call ray.init() before the weave, or "
                    "leave init out and give 'address'."
                )
            _connect(settings)
            _made = (settings.address or DEFAULT_ADDRESS, _identity())
        _holders += 1
    if is_client():
        # Tasks are what Ray Client carries here; that they amount to 10 MB in time is no news.
        warnings.filterwarnings("ignore", message="More than 10MB of messages", category=UserWarning)
        return True
    return False


def leave() -> None:
    """Close the session if it was made here and nobody else holds it. Blocking."""
    global _holders, _made
    with _lock:
        _holders -= 1
        if _holders or _made is None:
            return
        # The program may have closed it by itself, or the interpreter's end has.
        is_there, _made = _is_made_here(), None
        if is_there:
            ray.shutdown()
        _forwarded.removeFilter(_is_no_matter_of_threads)


def check() -> None:
    """Ask the server of Ray Client for the session, and close it if it is lost. Waits while Ray Client connects anew.

    A server that was started again does not know the session, and Ray Client says that it is connected until it is
    asked. Then it closes the session by itself, unless the asking thread has the identifier of one of its own that has
    ended: that is an error of its locks.
    """
    context = _client_context()
    client = context.client_worker
    if client is None or not client.is_connected():
        return
    try:
        client.connection_info()
    except (ConnectionError, RuntimeError):
        if context.client_worker is client:
            disconnect()


def is_client() -> bool:
    """Tell whether the session is one of Ray Client."""
    context = _client_context()
    return context is not None and bool(context.is_connected())


def _client_context() -> Any:
    # Where nobody has imported it, nobody is connected through it; it needs packages that others do not need.
    client = sys.modules.get("ray.util.client")
    return None if client is None else client.ray.get_context()


def _identity() -> object:
    """Return what tells the session from an earlier or a later one, also where Ray Client has lost it; None if there is
    none. Asks nobody.
    """
    context = _client_context()
    if context is not None and context.client_worker is not None:
        return context.client_worker
    if not ray.is_initialized():
        return None
    here = ray.get_runtime_context()
    return here.gcs_address, here.get_job_id()


def _is_made_here() -> bool:
    return _made is not None and _made[1] == _identity()


def _check_address(wanted: str | None) -> None:
    made = _made[0] if _made is not None and _is_made_here() else None
    if wanted is None or wanted in (DEFAULT_ADDRESS, made):
        return
    there = _address_in_use() if made in (None, DEFAULT_ADDRESS) else made
    # A host has many names; another port is another cluster for sure.
    if there is None or (there != made and there.rpartition(":")[2] == wanted.rpartition(":")[2]):
        return
    raise ConfigurationError(
        f"address: this process is connected to Ray at {there}, and has one session at a time; it cannot have another "
        f"one with {wanted}. Use one cluster in a process, or leave address out to use the session that there is."
    )


def _address_in_use() -> str | None:
    if is_client():
        return None  # It does not tell.
    return str(ray.get_runtime_context().gcs_address)


def _close_lost() -> None:
    """Close a session of Ray Client that is lost for good: until then, Ray refuses another one."""
    if _identity() is None:
        return
    if not _is_made_here():
        raise ConnectionError(
            "This process's own session with Ray is lost: Ray Client has given it up. Call ray.shutdown(), and "
            "ray.init() again, in the project."
        )
    ray.shutdown()


def _connect(settings: Settings) -> None:
    address = settings.address or DEFAULT_ADDRESS
    if settings.is_client:
        _require_client()
    elif address == DEFAULT_ADDRESS:
        address = os.environ.get("RAY_ADDRESS") or address
    _check_port(address)
    _close_lost()
    _forwarded.addFilter(_is_no_matter_of_threads)
    with _quietly():
        attempts = _CLIENT_ATTEMPTS if address.startswith(CLIENT_SCHEME) else 1
        for attempt in range(1, attempts + 1):
            try:
                ray.init(address=address, **(_QUIET | dict(settings.init_options)))
                return
            except ConnectionAbortedError as error:
                if attempt == attempts:
                    raise _explained(error, address) from error
                time.sleep(0.1)
            except Exception as error:
                raise _explained(error, address) from error


def _explained(error: Exception, address: str) -> Exception:
    said = " ".join(str(error).split())
    if isinstance(error, TypeError | ValueError) or "Unknown keyword" in said:
        return ConfigurationError(f"init_options: ray.init() refuses them: {said}")
    advice = (
        "Start a cluster with `ray start --head`, give its 'address', or 'local' for one that lives as long as this "
        "process."
        if address == DEFAULT_ADDRESS
        else "Is it running, and does it have the same versions of Ray and Python?"
    )
    if _LOST_PROCESS in said:
        said, advice = said[said.index(_LOST_PROCESS) :], _FORK_ADVICE
    if type(error).__name__ == "AuthenticationError":
        advice = "See RAY_AUTH_MODE in the documentation of Ray."
    return ConnectionError(f"Ray at {address!r} cannot be reached ({type(error).__name__}: {said}). {advice}")


def _require_client() -> None:
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise MissingDispatchFeatureError(
            "An address that begins with ray://", install='pip install "ray[client]"'
        ) from None


def _check_port(address: str) -> None:
    host, _, port = address.removeprefix(CLIENT_SCHEME).partition("?")[0].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            answers = _answers(connection)
    except OSError as error:
        raise ConnectionError(
            f"Ray at {address!r} cannot be reached ({type(error).__name__}: {error}). Is it running, and is address "
            "right?"
        ) from error
    if not answers:
        raise ConnectionError(
            f"Ray at {address!r} takes connections, and does not answer. Does the head run, and is this its port?"
        )


def _answers(connection: socket.socket) -> bool:
    """Tell whether something is there that takes note of a connection. What refuses this one, as TLS does, is."""
    connection.settimeout(_ANSWER_SECONDS)
    try:
        connection.sendall(_PREFACE)
        connection.recv(1)
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def _quietly() -> Iterator[None]:
    """Drop what Ray says about being initialized outside of the main thread."""
    logger = logging.getLogger("ray._private.worker")
    logger.addFilter(_is_no_matter_of_threads)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_matter_of_threads)


def _is_no_matter_of_threads(record: logging.LogRecord) -> bool:
    return "SIGTERM handler is not set" not in record.getMessage()
