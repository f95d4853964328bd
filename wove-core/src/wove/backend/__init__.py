"""What crosses the boundary: payloads on the way out, event frames on the way back.

Every name is resolved on first use, so that ``import wove.backend`` loads no networking code.
"""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove.backend.app import callback_app as callback_app
    from wove.backend.events import post_event as post_event
    from wove.backend.frames import deserialize_frame as deserialize_frame
    from wove.backend.frames import serialize_frame as serialize_frame
    from wove.backend.payload import build_backend_payload as build_backend_payload
    from wove.backend.payload import payload_from_b64 as payload_from_b64
    from wove.backend.payload import payload_to_b64 as payload_to_b64
    from wove.backend.receiver import BackendCallbackServer as BackendCallbackServer
    from wove.backend.worker import run_backend_payload as run_backend_payload
    from wove.backend.worker import run_backend_payload_async as run_backend_payload_async

_HOMES = {
    "BackendCallbackServer": "wove.backend.receiver",
    "build_backend_payload": "wove.backend.payload",
    "callback_app": "wove.backend.app",
    "deserialize_frame": "wove.backend.frames",
    "payload_from_b64": "wove.backend.payload",
    "payload_to_b64": "wove.backend.payload",
    "post_event": "wove.backend.events",
    "run_backend_payload": "wove.backend.worker",
    "run_backend_payload_async": "wove.backend.worker",
    "serialize_frame": "wove.backend.frames",
}

__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
