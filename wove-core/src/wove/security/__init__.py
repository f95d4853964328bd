"""Who may talk to whom: signing and verifying the requests between network executors and worker services.

A signed request carries four headers::

    X-Wove-Key: default
    X-Wove-Timestamp: 1767225600
    X-Wove-Nonce: 0f8c4d2b9a...
    X-Wove-Signature: v1=<hex HMAC-SHA256 of the canonical text>

The canonical text is ``wove-v1``, transport, target, timestamp (unix seconds), nonce and the hex SHA-256 of the body,
joined by line feeds. The transport is ``http``, ``grpc`` or ``websocket``; the target is the path with its query (gRPC:
the method). A WebSocket handshake signs an empty body.
"""

from wove.security.keys import SHORTEST_SECRET as SHORTEST_SECRET
from wove.security.keys import secret_from_environment as secret_from_environment
from wove.security.requests import NetworkExecutorSecurity as NetworkExecutorSecurity

__all__ = ["SHORTEST_SECRET", "NetworkExecutorSecurity", "secret_from_environment"]
