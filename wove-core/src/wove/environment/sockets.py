"""What every TCP connection to a worker service needs: keepalive, and words for what went wrong with it."""

import socket
import ssl
from contextlib import suppress

from wove.environment.network_link import TransportFailure


def keep_alive(connection: socket.socket | None) -> None:
    """Let the system notice within a minute that the host at the other end is gone, also while a task is awaited."""
    if connection is None:
        return
    for name, value in (("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        # Not every system has every option; TLS connections of asyncio hand out a socket that takes them too.
        if hasattr(socket, name):
            level = socket.SOL_SOCKET if name == "SO_KEEPALIVE" else socket.IPPROTO_TCP
            with suppress(OSError):
                connection.setsockopt(level, getattr(socket, name), value)


def unreachable(error: OSError) -> TransportFailure:
    """Return the failure of a connection that could not be opened."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransportFailure(
            f"its certificate is not trusted ({error.verify_message}). "
            "For a private certificate authority set executor_config 'root_certificates'",
            kind="SSLCertVerificationError",
            retryable=False,
        )
    if isinstance(error, ssl.SSLError):
        return TransportFailure(f"no TLS connection ({error.reason or error})", kind="SSLError", stage="unreached")
    kind = type(error).__name__ if isinstance(error, ConnectionError | TimeoutError) else "ConnectionError"
    reason = error.strerror or str(error) or "no connection in time"
    return TransportFailure(f"it cannot be reached ({reason})", kind=kind, stage="unreached", absent=True)


def broken(error: OSError) -> TransportFailure:
    """Return the failure of a connection that broke after the command had been sent, or begun to be."""
    kind = type(error).__name__ if isinstance(error, ConnectionError) else "ConnectionError"
    return TransportFailure(
        f"the connection broke ({error.strerror or type(error).__name__})", kind=kind, stage="broken"
    )
