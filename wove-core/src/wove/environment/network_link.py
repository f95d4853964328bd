"""The connection to a worker service as executors see it: commands go in, frames come out, failures have a stage."""

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from wove.backend.frames import frames_from_bytes
from wove.environment.network_settings import NetworkSettings

_QUOTED = 300
_PASSING = (408, 425, 429, 500, 502, 503, 504)

Stage = Literal["unreached", "broken", "final"]
Hear = Callable[[list[dict[str, Any]]], Awaitable[bool]]


class TransportFailure(Exception):
    """Why a command got no answer. Never leaves the executor: it becomes the ``task_error`` event of its run.

    Attributes:
        kind: the name under which the failure is reported.
        stage: ``unreached``: the service has not seen the command; ``broken``: it may have; ``final``: there is no use
            in asking again.
        retryable: whether another attempt at the task may succeed.
        absent: whether nobody has answered at all.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "ConnectionError",
        stage: Stage = "final",
        retryable: bool = True,
        absent: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage: Stage = stage
        self.retryable = retryable
        self.absent = absent


@dataclass(frozen=True, slots=True)
class Command:
    """A command frame, ready to be sent."""

    run_id: str
    task_id: str | None
    body: bytes
    delivery_timeout: float | None = None

    def attach(self) -> "Command":
        """Return the command that asks a service to go on reporting about this run."""
        frame = {"type": "attach_run", "run_id": self.run_id, "task_id": self.task_id}
        return Command(self.run_id, self.task_id, json.dumps(frame).encode("ascii"), self.delivery_timeout)


class Link(ABC):
    """The connections to one worker service, shared by all sessions with the same settings. Lives on the I/O loop.

    Attributes:
        beat: seconds between the signs of life that the service promised; None for a service that promised nothing.
            A service that promises them also lets a run be taken up again on another connection.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self.settings = settings
        self.beat: float | None = None

    @abstractmethod
    async def converse(self, command: Command, hear: Hear, alive: Callable[[], None]) -> None:
        """Send a command and pass on the frames that answer it, until `hear` returns True or the answer ends.

        Args:
            command: what to send.
            hear: takes frames with their pickles still encoded; returns True after the final one.
            alive: called when the command has been sent, and for every sign of life that is no frame.

        Raises:
            TransportFailure: the answer did not come, or is none.
        """

    @abstractmethod
    async def cancel(self, command: Command, hear: Hear) -> None:
        """Send a ``cancel_task`` command and pass on what answers it, if anything.

        Raises:
            TransportFailure: it could not be sent, or was refused.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


def beat_of(value: str | None) -> float | None:
    """Return the seconds of a ``Wove-Beat`` header, or None where a service promises nothing that can be relied on."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 < seconds <= 3600 else None


def decoded(data: bytes) -> list[dict[str, Any]]:
    """Return the frames of one message of a service, their pickles still encoded.

    Raises:
        TransportFailure: it is no message of frames.
    """
    try:
        return frames_from_bytes(data)
    except ValueError as error:
        raise TransportFailure(f"its answer is no event: {error}", kind="ProtocolError") from None


def refusal(status: int, body: bytes, *, taken: bool) -> TransportFailure:
    """Return the failure of a request that was answered with an HTTP status other than success.

    Args:
        status: the status.
        body: the beginning of the answer, which is quoted.
        taken: whether the service may have begun to carry out the command.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in body.decode("utf-8", "replace"))
    said = f": {text.strip()[:_QUOTED]}" if text.strip() else ""
    if not said and status in (401, 403):
        said = " and no reason; 'security' must be the same on both sides"
    if 300 <= status < 400:
        said = ", a redirect, and redirects are not followed: set 'url' to the service's own address"
    return TransportFailure(
        f"it answered with status {status}{said}",
        kind=f"HTTPStatus{status}",
        stage="final" if taken else "unreached",
        retryable=status in _PASSING,
    )
