"""A process that has been forked before its job is there, so that the job waits neither for the fork nor for its wake."""

import io
import os
import pickle
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import rq.job
from rq import Queue, Worker
from rq.job import Job

_READY, _TAKEN = b"r", b"t"
_LENGTH = struct.Struct("!Q")
# A spare that is about to be ready is waited for: to fork another one takes as long.
_PATIENCE_SECONDS = 0.02
# One that is not ready after this time never will be.
_LONGEST_START_SECONDS = 10.0
# How long the parent waits until the spare has taken the job. It then leaves it to RQ, which looks after every horse.
_ANSWER_SECONDS = 5.0
# A connection that is idle for longer may have been dropped by a firewall, without a word to either end.
_IDLE_CONNECTION_SECONDS = 30.0


class Spare:
    """A child of the worker that waits for one job, becomes the work horse of that job, and ends with it.

    The worker's main thread forks it and calls its methods. It ends by itself when the worker is gone.

    Args:
        worker: whose job it will be.
        warm_up: called in the child before it waits. What it raises does not matter.

    Raises:
        OSError: there is no process, or no file descriptor, to be had.
    """

    def __init__(self, worker: Worker, warm_up: Callable[[], object]) -> None:
        self._channel, theirs = socket.socketpair()
        self._forked_at = time.monotonic()
        self._ready = False
        self._ended = False
        # Whoever is forked from now on closes it, or else the spare would not notice that the worker is gone.
        _channels.add(self._channel)
        try:
            self.pid = os.fork()
        except OSError:
            self._close()
            theirs.close()
            raise
        if self.pid == 0:
            _live(worker, theirs, warm_up)
        theirs.close()
        try:
            # RQ kills a horse's group. Both sides set it, so that it is there for whoever is first.
            os.setpgid(self.pid, self.pid)
        except OSError:
            pass  # It has ended already.

    def is_ready(self) -> bool:
        """Tell whether it waits for its job, or does so in a moment."""
        try:
            if not self._ready:
                self._channel.settimeout(_PATIENCE_SECONDS)
                self._ready = self._channel.recv(1) == _READY
        except OSError:
            return False
        return self._ready

    def is_lost(self) -> bool:
        """Tell whether it has ended, or has had more than enough time to become ready."""
        if not self._ready and time.monotonic() - self._forked_at > _LONGEST_START_SECONDS:
            return True
        return self._has_ended(os.WNOHANG)

    def take(self, parcel: bytes) -> bool:
        """Give it the job; return False if it cannot have begun with it.

        True leaves the process to RQ, as if it had just been forked.
        """
        self._channel.settimeout(_ANSWER_SECONDS)
        try:
            self._channel.sendall(_LENGTH.pack(len(parcel)) + parcel)
        except OSError:
            return False
        try:
            return self._channel.recv(1) == _TAKEN
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self._close()

    def dismiss(self) -> None:
        """End it. It has no job, so there is nothing to be lost."""
        self._close()
        if not self._has_ended(os.WNOHANG):
            os.kill(self.pid, signal.SIGKILL)
            self._has_ended(0)

    def _has_ended(self, options: int) -> bool:
        # Once it has been waited for, its number may be that of another process.
        if not self._ended:
            try:
                self._ended = os.waitpid(self.pid, options)[0] != 0
            except ChildProcessError:
                self._ended = True
        return self._ended

    def _close(self) -> None:
        _channels.discard(self._channel)
        self._channel.close()


def parcel_of(worker: Worker, job: Job, queue: Queue) -> bytes | None:
    """Return what a child that RQ forks now would have in memory and the spare has not; None if it cannot be pickled.

    What both have, such as the connection, is only named.
    """
    known = {id(each): number for number, each in enumerate(_in_common(worker))}
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.known = known
    try:
        pickler.dump((job, queue, worker.executions, worker._stopped_job_id))
    except Exception:  # A job's class and its meta are the user's.
        return None
    return file.getvalue()


class _Pickler(pickle.Pickler):
    known: dict[int, int]

    def persistent_id(self, obj: Any) -> int | None:
        return self.known.get(id(obj))


class _Unpickler(pickle.Unpickler):
    known: list[Any]

    def persistent_load(self, pid: int) -> Any:
        return self.known[pid]


def _in_common(worker: Worker) -> list[Any]:
    # RQ tells by its identity that a part of a job has not been looked at yet.
    marks = [value for _, value in sorted(vars(rq.job).items()) if type(value) is object]
    return [worker, worker.connection, worker.serializer, *worker.queues, *marks]


def _live(worker: Worker, channel: socket.socket, warm_up: Callable[[], object]) -> None:
    """Be the spare. Does not return."""
    try:
        os.setpgrp()
        worker.setup_work_horse_signals()
        worker.procline("Waiting for a job")
        try:
            warm_up()
        except Exception:
            pass  # The job will meet it again, and RQ says so then.
        channel.sendall(_READY)
        _wait(worker, channel)
        parcel = _received(channel)
        if parcel is not None:
            _begin(worker, channel, parcel)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _begin(worker: Worker, channel: socket.socket, parcel: bytes) -> None:
    unpickler = _Unpickler(io.BytesIO(parcel))
    unpickler.known = _in_common(worker)
    job, queue, worker.executions, worker._stopped_job_id = unpickler.load()
    os.environ.update(environment_of(worker, job))
    channel.sendall(_TAKEN)
    channel.close()
    worker.main_work_horse(job, queue)


def environment_of(worker: Worker, job: Job) -> dict[str, str]:
    """Return the environment variables that RQ sets for a job."""
    return {"RQ_WORKER_ID": worker.name, "RQ_JOB_ID": job.id}


def _wait(worker: Worker, channel: socket.socket) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(_IDLE_CONNECTION_SECONDS * 1000):
        worker.connection.connection_pool.disconnect()
        poll.poll()


def _received(channel: socket.socket) -> bytes | None:
    """Return what the parent sends, or None if the parent, or its interest, ends before that is complete."""
    head = _exactly(channel, _LENGTH.size)
    return None if head is None else _exactly(channel, *_LENGTH.unpack(head))


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


# The worker's ends of the channels to its spares.
_channels: set[socket.socket] = set()


def _let_go_after_fork() -> None:
    for channel in _channels:
        channel.close()
    _channels.clear()


os.register_at_fork(after_in_child=_let_go_after_fork)
