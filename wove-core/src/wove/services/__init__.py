"""Ready-made worker services for the ``http``, ``websocket`` and ``grpc`` executors, so that nobody has to write one.

From a shell: ``python -m wove.services http --port 8900 --security env:WOVE_WORKER_SECRET``. In an application of one's
own: `create_app`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wove.services.asgi import create_app as create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> object:
    if name != "create_app":
        raise AttributeError(f"module 'wove.services' has no attribute {name!r}")
    from wove.services.asgi import create_app

    return create_app
