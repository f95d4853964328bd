"""An event loop on which time is a number, and threads that run on it one at a time.

Waiting takes no time: when nothing is left to do at this moment, the clock jumps to the next timer. A `Strand` runs
blocking code in a thread of its own, but only while the loop waits for it, so that everything happens in one order.
"""

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any

Request = Callable[[], Coroutine[Any, Any, Any]]


# Every world has come to its end long before.
_DURATION = 15_000.0


class Stuck(BaseException):
    """Everybody waits, and no timer is left, or none that would change anything: what no program of ours may do."""


class Killed(BaseException):
    """The process of this strand is dead; nothing of it happens any more."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only by its own timers.

    Attributes:
        now: seconds since its beginning.
        end: when it stops with `Stuck`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.end = _DURATION
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        # One thread runs at a time, so there is nobody to wake.
        return self.call_soon(callback, *args, context=context)


class _JumpingSelector(selectors.BaseSelector):
    """Never sees a file become ready; waiting moves the loop's clock instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("Everybody waits, and no timer is left.")
        if self._loop.now > self._loop.end:
            raise Stuck(f"Everybody still waits after {self._loop.end:g} s.")
        if timeout > 0:
            # A little more than asked, so that rounding never leaves the clock just before a timer for ever.
            self._loop.now += timeout + 1e-9
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class Strand:
    """Blocking code in a thread of its own that runs only while the loop waits for it.

    Args:
        function: the code. It may call `Strand.block`.
        owner: whom the strand belongs to; anything.
    """

    _here = threading.local()

    def __init__(self, function: Callable[[], object], owner: Any) -> None:
        self.owner = owner
        self._function = function
        self._turn = threading.Lock()
        self._back = threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._request: Request | None = None
        self._value: Any = None
        self._failure: BaseException | None = None
        self._dead = False
        self._ended: BaseException | None = None

    @classmethod
    def current(cls) -> "Strand":
        """Return the strand whose code is running."""
        strand: Strand = cls._here.strand
        return strand

    async def run(self) -> None:
        """Run the code to its end. Cancelling this kills the strand: whatever it does next raises `Killed`.

        Raises:
            BaseException: what the code raised, but for `Killed`.
        """
        thread = threading.Thread(target=self._main, name="strand", daemon=True)
        self._turn.release()
        thread.start()
        self._back.acquire()
        try:
            while self._request is not None:
                await self._serve(self._request)
        finally:
            thread.join()
        if self._ended is not None and not isinstance(self._ended, Killed):
            raise self._ended

    async def _serve(self, request: Request) -> None:
        self._request = self._value = self._failure = None
        try:
            self._value = await request()
        except asyncio.CancelledError:
            self._dead = True
            self._continue()
            raise
        except BaseException as error:
            self._failure = error
        self._continue()

    def _continue(self) -> None:
        self._turn.release()
        self._back.acquire()

    def block(self, request: Request) -> Any:
        """Let the loop await something, and return its result. Called by the strand's own code.

        Raises:
            Killed: the strand has been killed.
        """
        if self._dead:
            raise Killed
        self._request = request
        self._back.release()
        self._turn.acquire()
        if self._dead:
            raise Killed
        if self._failure is not None:
            raise self._failure
        return self._value

    def _main(self) -> None:
        self._turn.acquire()
        Strand._here.strand = self
        try:
            self._function()
        except BaseException as error:
            self._ended = error
        finally:
            self._request = None
            self._back.release()


def sleep(seconds: float) -> None:
    """Let time pass in the current strand."""
    Strand.current().block(lambda: asyncio.sleep(seconds))
