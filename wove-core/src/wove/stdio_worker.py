"""The worker process of the stdio executor: ``python -m wove.stdio_worker``.

It reads one JSON frame per line on stdin and writes one per line on stdout; an owner that says hello gets Wove's own
framing. Synchronous tasks run side by side in threads, the first of them in the main thread; coroutines share one event
loop. The process ends when its stdin ends.
"""

import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from wove.backend.channel import Channel
from wove.backend.final_events import cancelled_event, error_event
from wove.backend.frames import check_frame, frame_from_bytes
from wove.backend.framing import Frame
from wove.backend.pulse import Pulse
from wove.backend.stdio_codec import returned_event, started_event
from wove.backend.stdio_job import Functions, Job
from wove.backend.task_logs import Forwarding
from wove.backend.task_loop import TaskLoop
from wove.backend.task_threads import DEFAULT_THREADS, TaskThreads
from wove.backend.threads import in_daemon_thread
from wove.backend.types import EventFrame

# What tasks may still do when the owner has gone.
_SECONDS_TO_GO = 0.5


class StdioWorker:
    """Executes what comes through a channel until its other end is closed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._threads: TaskThreads[Job] = TaskThreads(
            execute=self._execute, readable=channel.wait, receive=self._receive, limit=DEFAULT_THREADS
        )
        self._loop = TaskLoop()
        self._pulse = Pulse(beat=self._beat, tick=self._tick, busy=lambda: bool(self._jobs))
        self._functions = Functions()
        self._jobs: dict[str, Job] = {}
        # Jobs whose start has not been told: that of a short task is told together with its result.
        self._starting: dict[str, Job] = {}
        # Jobs that no thread has taken. Whoever pops one, a thread or a cancel, decides about it.
        self._queued: dict[str, Job] = {}

    def serve(self) -> None:
        """Execute tasks, synchronous ones in the calling thread first; return when the owner has gone."""
        self._pulse.start()
        # Listening to log records all the time costs less than beginning to with every task.
        with Forwarding(_ignore):
            self._threads.work()
        while self._jobs:  # The interpreter must not end under the threads that still work; `_go` ends the process.
            time.sleep(_SECONDS_TO_GO)

    # The thread that reads.

    def _receive(self) -> None:
        received = self._channel.receive()
        if received is None:
            self._go()
            return
        for message in received:
            self._obey(message)

    def _go(self) -> None:
        """End the process, at once if nothing is being executed."""
        self._queued.clear()
        for job in list(self._jobs.values()):
            job.stop()
        self._threads.close()
        threading.Thread(target=_exit_later, name="wove-exit", daemon=True).start()

    def _obey(self, message: Frame | bytes) -> None:
        try:
            frame = message.head if isinstance(message, Frame) else frame_from_bytes(message)
            kind = frame["type"] if isinstance(message, Frame) else check_frame(frame)
        except ValueError as error:
            print(f"wove.stdio_worker: {error}", file=sys.stderr)
            return
        if kind == "run_task":
            self._begin(Job(frame, message if isinstance(message, Frame) else None))
        elif kind == "cancel_task":
            self._cancel(frame)
        elif kind == "recall_task":
            self._return(frame["run_id"])
        elif kind == "hello":
            self._be_told(frame)
        elif kind == "shutdown":
            self._go()
        else:
            unknown = ValueError(f"A worker does not know the command {kind[:80]!r}.")
            ids = {"run_id": frame["run_id"], "task_id": frame.get("task_id")}
            self._channel.post(error_event(ids, unknown, source="executor"))

    def _be_told(self, hello: dict[str, Any]) -> None:
        """Follow the owner's settings. They come before any task."""
        threads, path = hello.get("threads"), hello.get("path")
        if isinstance(threads, int):
            self._threads.limit = threads
        if isinstance(path, list):
            sys.path[:] = path

    def _begin(self, job: Job) -> None:
        self._jobs[job.run_id] = job
        if job.is_coroutine:
            self._loop.submit(self._execute_coroutine(job))
        else:
            self._queued[job.run_id] = job
            self._threads.put(job)

    def _cancel(self, frame: dict[str, Any]) -> None:
        job = self._jobs.get(frame["run_id"])
        if job is None:
            return
        if self._queued.pop(job.run_id, None) is not None:
            self._finish(job, cancelled_event(job.ids))
        else:
            job.stop()

    def _return(self, run_id: str) -> None:
        """Give a run back if it has not begun: the owner has a better place for it."""
        job = self._queued.pop(run_id, None)
        if job is not None:
            self._finish(job, returned_event(job.ids))

    # The threads that execute tasks.

    def _execute(self, job: Job) -> None:
        if self._queued.pop(job.run_id, None) is None:
            return
        try:
            self._started(job)
            event = job.prepare(self._functions)
            if event is None and job.is_coroutine:
                self._loop.submit(self._execute_coroutine(job))
                return
            if event is None:
                with Forwarding(functools.partial(self._log, job)):
                    event = job.run()
            self._finish(job, event)
        except BaseException:
            # Nothing of a task gets here. A worker that cannot say what became of a task must not go on in silence.
            _die()

    async def _execute_coroutine(self, job: Job) -> None:
        try:
            self._finish(job, await self._event_of(job))
        except BaseException:
            _die()

    async def _event_of(self, job: Job) -> EventFrame:
        failure = None
        if not job.is_prepared:
            self._started(job)
            if job.loads_at_once(self._functions):
                failure = job.prepare(self._functions)
            else:
                failure = await in_daemon_thread(job.prepare, self._functions)
        if failure is not None:
            return failure
        with Forwarding(functools.partial(self._log, job)):
            return await job.arun()

    def _log(self, job: Job, record: Mapping[str, Any]) -> None:
        # In the middle of the task, where it may be stopped at any moment: nothing may be written there.
        self._channel.post_soon({"type": "log", **job.ids, **record})  # type: ignore[typeddict-item]

    def _started(self, job: Job) -> None:
        self._starting[job.run_id] = job
        self._pulse.begin(job.run_id, job.heartbeat_interval)

    def _finish(self, job: Job, event: EventFrame) -> None:
        self._pulse.end(job.run_id)
        self._jobs.pop(job.run_id, None)
        self._channel.post(event, started=self._starting.pop(job.run_id, None) is not None)

    # The pulse's thread.

    def _tick(self) -> None:
        self._threads.oversee()
        for run_id in list(self._starting):
            job = self._starting.pop(run_id, None)
            if job is not None:
                self._channel.post(started_event(job.ids))
        self._channel.flush()

    def _beat(self, run_id: str) -> None:
        job = self._jobs.get(run_id)
        if job is not None:
            self._channel.post({"type": "heartbeat", "run_id": run_id, "task_id": job.ids["task_id"]})


def _ignore(record: Mapping[str, Any]) -> None:
    """Forward a log record of no task to nobody."""


def _exit_later() -> None:
    time.sleep(_SECONDS_TO_GO)
    os._exit(0)


def _die() -> None:
    traceback.print_exc()
    os._exit(70)


def main() -> None:
    """Serve the owner of this process until it closes stdin."""
    channel = Channel.take_over()
    os.register_at_fork(after_in_child=channel.forget)
    StdioWorker(channel).serve()


if __name__ == "__main__":
    main()
