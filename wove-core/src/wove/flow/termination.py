"""What SIGTERM does while the main thread waits for a weave."""

import asyncio
import os
import signal
import threading
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from wove.flow.doors import Cancellable


class Termination:
    """Lets SIGTERM cancel a weave that the main thread waits for, where the program has not said what SIGTERM is to do.

    Without it the process would die at once: remote tasks would run on, worker processes and files would stay. A weave
    that is over in a moment is spared the cost: it has nothing of that kind to leave behind.

    Args:
        work: what SIGTERM cancels.
        among_others: other asyncio tasks of its loop may wait for weaves, too.
    """

    MOMENT_SECONDS = 0.02

    # The handler is there as long as one of them waits.
    _waiting: ClassVar["set[Termination]"] = set()

    def __init__(self, work: "Cancellable", *, among_others: bool = False) -> None:
        self._work = work
        self._among_others = among_others
        self._received = False

    def __enter__(self) -> "Termination":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self in self._waiting:
            self._waiting.discard(self)
            if not self._waiting and signal.getsignal(signal.SIGTERM) is _on_termination:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None:  # It may have come when there was nothing left to cancel.
            self.leave()

    async def watch(self) -> None:
        """Run the work."""
        if threading.current_thread() is not threading.main_thread():
            await self._work.run()
            return
        timer = asyncio.get_running_loop().call_later(self.MOMENT_SECONDS, self.install)
        try:
            await self._work.run()
        finally:
            timer.cancel()

    def install(self) -> None:
        """Listen from now on. Called on the main thread."""
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            _spare_forked_processes()
            signal.signal(signal.SIGTERM, _on_termination)
        elif before is not _on_termination:
            return
        self._waiting.add(self)

    def leave(self) -> None:
        """Raise SystemExit with the shell's exit code for the signal if it came."""
        if not self._received:
            return
        # A loop ends with the first SystemExit: the last of those that share it raises it, the others are cancelled.
        if self._among_others and any(each._among_others for each in self._waiting - {self}):
            return
        raise SystemExit(128 + signal.SIGTERM)

    @classmethod
    def receive(cls) -> None:
        """Cancel what the main thread waits for; a second time, let the signal do what it does without a handler."""
        if any(each._received for each in cls._waiting):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for each in cls._waiting:
            each._received = True
            each._work.cancel()


def _on_termination(number: int, frame: FrameType | None) -> None:
    Termination.receive()


@cache
def _spare_forked_processes() -> None:
    """Let a process that a task forks off die of SIGTERM: there is no weave in it to be cancelled.

    The signal is blocked until the handler is gone there. One that comes earlier would be lost.
    """
    if not hasattr(os, "register_at_fork"):
        return
    blocked = threading.local()

    def before() -> None:
        blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    def in_child() -> None:
        Termination._waiting.clear()
        if signal.getsignal(signal.SIGTERM) is _on_termination:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
