"""A process that is forked before its job is there, so that the job waits neither for the fork nor for what follows it.

A fresh fork copies every page that it writes to for the first time, and Python writes to each object that it looks at:
a no-op task costs 5 ms there, and 0.6 ms in a process that has been through one.
"""

import inspect
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from rq import Queue, Worker
from rq.job import Job

from wove_rq.inheritance import abandon, is_visible
from wove_rq.parcel import Parcels

_READY, _TAKEN = b"r", b"t"
_LENGTH = struct.Struct("!Q")
# A spare that is about to be ready is waited for: to fork another process takes as long.
_PATIENCE_SECONDS = 0.02
# One that is not ready after this time never will be.
_LONGEST_START_SECONDS = 10.0
# How long the worker waits to hear that the job was taken. It then leaves the process to RQ, which watches every horse.
_ANSWER_SECONDS = 5.0
# A connection that is idle for longer may have been dropped by a firewall, without a word to either end.
_IDLE_CONNECTION_SECONDS = 30.0

# What is used of RQ beyond its documentation: fork_work_horse(job, queue) is where it forks, and main_work_horse(job,
# queue) what the child calls; `_horse_pid` is whom it watches and kills; `_stopped_job_id` is the job that it was told
# to stop.
_METHODS = ("fork_work_horse", "main_work_horse")
_ATTRIBUTES = ("_horse_pid", "_stopped_job_id")


def is_possible(worker: Worker) -> bool:
    """Tell whether RQ, its connections to Redis and the system are as the module expects it. Otherwise RQ forks, as
    ever. To be asked when the worker has been connected.
    """
    for name in _METHODS:
        method = getattr(Worker, name, None)
        if method is None or list(inspect.signature(method).parameters) != ["self", "job", "queue"]:
            return False
    return all(hasattr(worker, name) for name in _ATTRIBUTES) and is_visible(worker)


class Spares:
    """The spare of one worker, and the next one when that has got its job. For the worker's main thread alone.

    Args:
        worker: whose jobs they execute.
        warm_up: called in each spare before it waits for its job. What it raises does not matter.
    """

    def __init__(self, worker: Worker, warm_up: Callable[[], object]) -> None:
        self._worker = worker
        self._warm_up = warm_up
        self._spare: _Spare | None = None

    def prepare(self) -> None:
        """Fork a spare unless there is one."""
        if self._spare is not None and self._spare.is_lost():
            self.dismiss()
        if self._spare is None:
            try:
                self._spare = _Spare(self._worker, self._warm_up)
            except OSError as error:
                self._worker.log.warning("No process could be forked ahead of its job: %s", error)

    def hand_over(self, job: Job, queue: Queue) -> bool:
        """Make the spare the work horse of a job, as `fork_work_horse` makes a new process that.

        Returns:
            False if nothing has begun: the job needs a process of its own.
        """
        spare, worker = self._spare, self._worker
        if spare is None or not spare.is_ready():
            return False
        news = spare.parcels.news(worker)
        parcel = spare.parcels.packed((job, queue, news))
        if parcel is None:
            if spare.parcels.packed(news) is None:
                self.dismiss()  # The next one is forked with what this one cannot be told, e.g. RQ's scheduler.
            return False
        self._spare = None
        # Already now: RQ's stop command, on another thread, and its cold shutdown kill the process of this number.
        worker._horse_pid = spare.pid
        # One that was killed because the job was stopped counts as taken: RQ looks for its end, and what it means.
        if not spare.take(parcel) and worker._stopped_job_id != job.id:
            worker._horse_pid = 0
            spare.dismiss()
            return False
        os.environ.update(_environment(worker, job))
        worker.procline(f"Handed over to {spare.pid} at {time.time()}")  # type: ignore[no-untyped-call]
        return True

    def dismiss(self) -> None:
        """End the spare, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.dismiss()


class _Spare:
    """A child of the worker that waits for one job, becomes its work horse, and ends with it.

    It ends by itself when the worker is gone.

    Raises:
        OSError: there is no process, or no file descriptor, to be had.
    """

    def __init__(self, worker: Worker, warm_up: Callable[[], object]) -> None:
        self.parcels = Parcels(worker)
        self._channel, theirs = socket.socketpair()
        self._forked_at = time.monotonic()
        self._ready = False
        self._ended = False
        _channels.add(self._channel)
        try:
            self.pid = os.fork()
        except OSError:
            self._close()
            theirs.close()
            raise
        if self.pid == 0:
            _live(worker, theirs, self.parcels, warm_up)
        theirs.close()
        try:
            # RQ kills a horse's group. Both sides make it, so that it is there for whoever comes first.
            os.setpgid(self.pid, self.pid)
        except OSError:
            pass  # It has ended already.

    def is_ready(self) -> bool:
        """Tell whether it waits for its job, or does so in a moment."""
        if not self._ready:
            self._channel.settimeout(_PATIENCE_SECONDS)
            try:
                self._ready = self._channel.recv(1) == _READY
            except OSError:
                return False
        return self._ready

    def is_lost(self) -> bool:
        """Tell whether it has ended, or has had more than enough time to become ready."""
        overdue = time.monotonic() - self._forked_at > _LONGEST_START_SECONDS
        return self._has_ended(os.WNOHANG) or (overdue and not self.is_ready())

    def take(self, parcel: bytes) -> bool:
        """Give it the job; return False if it has not begun with it and cannot any more."""
        self._channel.settimeout(_ANSWER_SECONDS)
        try:
            self._channel.sendall(_LENGTH.pack(len(parcel)) + parcel)
        except OSError:
            self._close()
            return False  # What it has is not complete, and it does nothing with that.
        try:
            return self._channel.recv(1) == _TAKEN
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self._close()

    def dismiss(self) -> None:
        """End it. It has no job, so nothing is lost."""
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


def _live(worker: Worker, channel: socket.socket, parcels: Parcels, warm_up: Callable[[], object]) -> None:
    """Be the spare. Does not return."""
    try:
        os.setpgrp()
        # RQ's own horses keep them. But while one of them lives, its worker waits for no other job.
        abandon(worker)
        worker.setup_work_horse_signals()  # type: ignore[no-untyped-call]
        try:
            warm_up()
        except Exception:
            pass  # The job will meet it again, and RQ says so then.
        channel.sendall(_READY)
        worker.procline("Waiting for a job")  # type: ignore[no-untyped-call]
        worker.log.debug("Worker %s: process %d waits for the next job", worker.name, os.getpid())
        _wait(worker, channel)
        parcel = _received(channel)
        if parcel is not None:
            _begin(worker, channel, *parcels.unpacked(parcel))
    except BaseException:
        # Before the answer, the worker forks another process; after it, RQ has exits of its own.
        os._exit(1)
    os._exit(0)


def _wait(worker: Worker, channel: socket.socket) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(_IDLE_CONNECTION_SECONDS * 1000):
        worker.connection.connection_pool.disconnect()
        poll.poll()


def _begin(worker: Worker, channel: socket.socket, job: Job, queue: Queue, news: dict[str, Any]) -> None:
    vars(worker).update(news)
    os.environ.update(_environment(worker, job))
    worker.log.debug("Worker %s: process %d takes job %s", worker.name, os.getpid(), job.id)
    channel.sendall(_TAKEN)
    channel.close()
    worker.main_work_horse(job, queue)


def _environment(worker: Worker, job: Job) -> dict[str, str]:
    return {"RQ_WORKER_ID": worker.name, "RQ_JOB_ID": job.id}


def _received(channel: socket.socket) -> bytes | None:
    """Return what the worker sends, or None if it closes its end before that is complete."""
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


# The worker's ends of the channels to its spares. Whoever is forked closes them: while another process has one open,
# the spare does not notice that the worker is gone.
_channels: set[socket.socket] = set()


def _let_go_after_fork() -> None:
    for channel in _channels:
        channel.close()
    _channels.clear()


os.register_at_fork(after_in_child=_let_go_after_fork)
