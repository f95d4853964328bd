"""One run's conversation with a worker service: from its command to exactly one final event."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from random import random
from typing import Any

from wove.backend.frames import check_frame, deserialize_event
from wove.backend.types import FINAL_EVENTS
from wove.environment.absence import advice_for_absence
from wove.environment.event_queue import EventQueue
from wove.environment.network_link import Command, Link, TransportFailure
from wove.environment.network_settings import MIB
from wove.environment.silence import Silence
from wove.errors import DeliveryError, DeliveryTimeoutError
from wove.serialization import describe

# A refused connection is tried again for this long: a service that restarts is back soon, and one that is down shows.
REACH_SECONDS = 2.0
# A run whose connection broke is looked for again for this long, at services that keep runs for it.
RESUME_SECONDS = 10.0
# A service that promises a sign of life every `beat` seconds is given up after three of them. One that promises nothing
# may be working or lost, and only time can tell; `timeout` and `delivery_timeout` say how much of it.
SILENT_BEATS = 3
SILENCE_SECONDS = 300.0
CANCEL_SECONDS = 10.0
# A cancel waits for its run to be sent; one that has not been by then is never sent.
SENT_SECONDS = 1.0

# Unpickling this much, or importing what it needs, would hold up every other connection of the loop.
_LARGE = MIB
_END_SECONDS = 0.5


class Conversation:
    """Carries one run from its command to its final event, over as many connections as that takes."""

    def __init__(self, command: Command, link: Link, inbox: EventQueue, *, environment: str) -> None:
        self._command = command
        self._link = link
        self._inbox = inbox
        self._environment = environment
        self._heard = False
        self._silence = Silence(self._silence_limit)
        self._ids = {"run_id": command.run_id, "task_id": command.task_id}
        # A cancel must not overtake its run on another connection, or on one that is being opened.
        self._sent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.done = False

    def begin(self, ended: Callable[[], object]) -> None:
        """Start to `carry` the run in a task; `ended` is called when that has ended."""
        self._task = asyncio.create_task(self.carry())
        self._task.add_done_callback(lambda task: ended())

    def leave(self) -> None:
        """Stop, unless the final event has come: then the rest of the answer is read, which takes a moment at most."""
        if not self.done:
            self.abort()

    def abort(self) -> None:
        """Stop at once."""
        if self._task is not None:
            self._task.cancel()

    async def sent(self) -> bool:
        """Wait until the command has been sent; False if it could not be, and then the run has been cancelled here."""
        try:
            async with asyncio.timeout(SENT_SECONDS):
                await self._sent.wait()
        except TimeoutError:
            if not self.done:
                self.done = True
                self._inbox.put({"type": "task_cancelled", **self._ids})
            self.abort()
        return self._sent.is_set()

    async def ended(self) -> None:
        """Wait until the task has ended; not for long, whatever it is doing."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_END_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def carry(self) -> None:
        """Send the command and put every event of its run into the inbox; the last one is final, whatever happens."""
        limit = self._link.settings.timeout
        try:
            if limit is None:
                await self._ask()
            else:
                async with asyncio.timeout(limit):
                    await self._ask()
            if not self.done:
                raise TransportFailure("it ended its answer without a final event", kind="ProtocolError")
        except TimeoutError:
            self._fail(TransportFailure(f"it did not answer within the timeout of {limit} s", kind="TimeoutError"))
            await self._stop_run()
        except TransportFailure as failure:
            self._fail(failure)
        except Exception as error:  # Whatever goes wrong here must not leave the weave waiting.
            self._fail(TransportFailure(describe(error), kind=type(error).__name__))

    async def hear(self, frames: list[dict[str, Any]]) -> bool:
        """Check frames and put their events into the inbox; True after the final one."""
        self._silence.broken()
        self._heard = True
        for frame in frames:
            if self.done:
                break
            await self._hear(frame)
        return self.done

    async def _hear(self, frame: dict[str, Any]) -> None:
        if frame.setdefault("run_id", self._command.run_id) != self._command.run_id:
            raise TransportFailure("it answered with an event of another run", kind="ProtocolError")
        if frame.get("task_id") is None:
            frame["task_id"] = self._command.task_id
        try:
            kind = check_frame(frame)
            large = sum(len(value) for value in frame.values() if isinstance(value, str | memoryview)) > _LARGE
            event = await asyncio.to_thread(deserialize_event, frame) if large else deserialize_event(frame)
        except ValueError as error:
            raise TransportFailure(f"its answer is no event: {error}", kind="ProtocolError") from None
        self.done = kind in FINAL_EVENTS
        self._inbox.put(event)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        command, pause, until = self._command, 0.1, loop.time() + REACH_SECONDS
        while True:
            self._heard = False
            try:
                await self._ask_once(command)
                return
            except TransportFailure as failure:
                if self.done:
                    return
                if failure.stage == "final" or (failure.stage == "broken" and self._link.beat is None):
                    raise
                if failure.stage == "broken" and (self._heard or command is self._command):
                    command, pause, until = self._command.attach(), 0.1, loop.time() + RESUME_SECONDS
                if loop.time() + pause > until:
                    raise
            # Half of it is random, so that the runs of a broken connection do not all come back at once.
            await asyncio.sleep(pause * (0.5 + random() / 2))
            pause = min(pause * 2, 2.0)

    async def _ask_once(self, command: Command) -> None:
        silence = self._silence
        try:
            async with silence:
                await self._link.converse(command, self.hear, self._progress)
        except TimeoutError as error:
            if not silence.expired:
                raise TransportFailure(describe(error), kind="TimeoutError", stage="broken") from None
            raise TransportFailure(self._words_for_silence(), kind="TimeoutError", stage="broken") from None

    def _progress(self) -> None:
        self._sent.set()
        self._silence.broken()

    def _silence_limit(self) -> float | None:
        if self._link.beat is not None:
            # The service cannot be heard while it is still reading a large command.
            return SILENT_BEATS * self._link.beat + len(self._command.body) / MIB
        if not self._link.settings.watch_silence or self._command.delivery_timeout is not None:
            return None
        return SILENCE_SECONDS

    def _words_for_silence(self) -> str:
        if self._link.beat is not None:
            return f"it has been silent for {self._silence_limit():g} s"
        return (
            f"it has sent nothing for {SILENCE_SECONDS:g} s. For longer tasks set executor_config 'timeout' to "
            "a number of seconds or to None, or use a service that sends signs of life, as wove.services does"
        )

    def _fail(self, failure: TransportFailure) -> None:
        if self.done:
            return
        self.done = True
        settings = self._link.settings
        advice = f" {advice_for_absence(settings)}" if failure.absent else ""
        message = f"Environment {self._environment!r}: {settings.address}: {failure}.{advice}"
        error = {
            "kind": failure.kind,
            "message": message,
            "traceback": "",
            "retryable": failure.retryable,
            "source": "transport",
        }
        late = failure.kind == "TimeoutError"
        exception = DeliveryTimeoutError(message) if late else DeliveryError(message, reason=str(failure))
        self._inbox.put({"type": "task_error", **self._ids, "exception": exception, "error": error})

    async def _stop_run(self) -> None:
        frame = {"type": "cancel_task", **self._ids}
        command = Command(self._command.run_id, self._command.task_id, json.dumps(frame).encode("ascii"))
        with suppress(TransportFailure, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._link.cancel(command, self.hear)
