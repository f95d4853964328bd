"""What a worker tells the scheduler about tasks of Wove: that one begins, and with what outcome it has ended."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from distributed import Worker

from wove_dask.carrier import BEFORE, BEGUN, CLIENT, OUTCOME

# A worker's loop that takes longer is held up by a task of its own.
_WRITE_SECONDS = 1.0
_PAUSE = 0.001

logger = logging.getLogger("wove")

Lost = Callable[[], object]


class Beginning:
    """A task that Dask begins.

    Attributes:
        client: the id of the client that waits for its outcome.
        before: what had become of it when the scheduler assigned it to this worker, see `wove_dask.carrier`.
    """

    def __init__(self, client: str, before: str | None) -> None:
        self.client = client
        self.before = before
        self._settled = threading.Event()
        self._told = False

    def settle(self, *, told: bool) -> None:
        """Let go of the thread that executes it; on the worker's loop."""
        self._told = told
        self._settled.set()

    def is_told(self) -> bool:
        """Tell whether the scheduler will know that the task has begun, even if this process dies now. Blocks."""
        return self._settled.wait(_WRITE_SECONDS) and self._told


def beginning_of(worker: Worker, key: object) -> Beginning | None:
    """Return what the scheduler has said of a task; None if it is none of Wove's, or nobody takes messages about it."""
    task = worker.state.tasks.get(key)
    annotations = (task.annotations if task is not None else None) or {}
    return Beginning(annotations[CLIENT], annotations.get(BEFORE)) if CLIENT in annotations else None


class Messages:
    """Sends messages to the scheduler without the pauses that Dask makes. On the worker's loop.

    Args:
        worker: Dask's worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._unsent: list[dict[str, Any]] = []
        self._beginnings: list[Beginning] = []
        self._lost: list[Lost] = []
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, key: str) -> Beginning | None:
        """Tell the scheduler that a task begins; None if it is no task of Wove, or its scheduler takes no messages."""
        beginning = beginning_of(self._worker, key)
        if beginning is not None:
            self._beginnings.append(beginning)
            self._send({"op": BEGUN, "key": key})
        return beginning

    def end(self, client: str, run_id: str, outcome: bytes, lost: Lost) -> None:
        """Send an outcome to a client. `lost` is called if the scheduler is not there any more."""
        self._lost.append(lost)
        self._send({"op": OUTCOME, "client": client, "run_id": run_id, "outcome": outcome})

    def _send(self, message: dict[str, Any]) -> None:
        self._unsent.append(message)
        if not self._due:
            self._due = True
            # Soon: what Dask itself has to say about this moment goes along.
            task = asyncio.get_running_loop().create_task(self._send_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_all(self) -> None:
        self._due = False
        messages, self._unsent = self._unsent, []
        beginnings, self._beginnings = self._beginnings, []
        lost, self._lost = self._lost, []
        sent = False
        try:
            sent = await self._written(messages)
        except Exception as error:
            if not isinstance(error, OSError):  # Dask's own messages are lost as well. It gives up its connection then.
                logger.warning("This Dask worker gives up its scheduler: a message to it failed: %r", error)
                self._worker.batched_stream.abort()
            for call in lost:
                call()
        finally:
            for beginning in beginnings:
                beginning.settle(told=sent)

    async def _written(self, messages: list[dict[str, Any]]) -> bool:
        """Write messages, and those that Dask has gathered; return whether they leave even if this process dies.

        Raises:
            CommClosedError: the scheduler has gone.
        """
        stream = self._worker.batched_stream
        comm = stream.comm
        gathered, stream.buffer = stream.buffer, []
        await comm.write([*messages, *gathered], on_error="raise")
        socket = getattr(comm, "stream", None)
        if socket is None or not hasattr(socket, "writing"):
            return False
        while socket.writing():  # noqa: ASYNC110 - there is nothing that could be awaited
            await asyncio.sleep(_PAUSE)
        return not socket.closed()
