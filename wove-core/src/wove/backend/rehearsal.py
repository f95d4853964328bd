"""A run that nobody waits for, in a process that was forked from another and is to execute a task later.

What such a process writes to for the first time, the kernel has to copy page by page: Python counts references in every
object that it looks at. A no-op task takes 5 ms in a fresh fork and 0.6 ms where another one has been before.
"""

import operator
import socket
import threading

from wove.backend.pacemaker import Pacemaker
from wove.backend.payload import build_backend_payload
from wove.backend.retries import DeliveryPolicy
from wove.backend.spool import spool, spool_name
from wove.backend.types import Payload
from wove.backend.worker import execute_run
from wove.backend.worker_run import WorkerRun
from wove.errors import DeliveryError

# Nothing here waits for another process.
_SECONDS = 1.0
# A process that is held up finds nobody there any more, and is to be ready all the same.
_POLICY = DeliveryPolicy(connect=_SECONDS, answer=_SECONDS, limit=_SECONDS)
_RUN_ID = "rehearsal"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


def rehearsal_payload() -> Payload:
    """Return what `rehearse` takes. It may be made before the fork: that takes longer than the rehearsal."""
    frame = {"run_id": _RUN_ID, "task_id": _RUN_ID, "callable": operator.index, "args": {}}
    return build_backend_payload(frame, callback_url="http://127.0.0.1/", adapter=_RUN_ID)


def rehearse(payload: Payload) -> None:
    """Execute a task that does nothing, and post its result to a socket of this process's own.

    Nothing is left of it: no thread, no connection, no file, no signal handler. Call it in the main thread.

    Raises:
        DeliveryError: the process has been held up for more than a second.
        Exception: something that a real run would meet as well, e.g. this worker demands signed payloads.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_SECONDS)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/wove/events/{_RUN_ID}"
        # Its heartbeats are never due, so that no thread is started to look after them.
        timing = Pacemaker(run=lambda job: None)
        run = WorkerRun({**payload, "callback_url": url}, policy=_POLICY, delivered_once=True, timing=timing)
        # The only thing that needs a second thread: a weave's receiver is another process.
        receiver = threading.Thread(target=_answer, args=(server,), name="wove-rehearsal", daemon=True)
        receiver.start()
        try:
            execute_run(run)
        except DeliveryError:
            # It was kept for another delivery, and there is none.
            spool().remove(spool_name(url, _RUN_ID))
            raise
        finally:
            receiver.join()


def _answer(server: socket.socket) -> None:
    try:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(_SECONDS)
            connection.recv(1 << 16)
            connection.sendall(_ANSWER)
    except OSError:
        pass  # Whoever posts notices it.
