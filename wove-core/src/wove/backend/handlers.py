"""The handlers of signals, read and set as the interpreter keeps them.

The functions of the module `signal` look for each handler among the members of an enum, which takes 4 to 8 microseconds
where it is none (CPython 3.11), and eleven calls surround every task: some 90 microseconds of a worker's time for one.
The module below it leaves that out.
"""

import signal
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

_module: ModuleType = signal
try:
    import _signal as _module  # type: ignore[import-not-found, no-redef, unused-ignore]
except ImportError:
    pass  # Not every interpreter has it.


def handler_of(number: int) -> Handler:
    """Return a signal's handler; None where C code handles it."""
    found: Handler = _module.getsignal(number)
    return found


def set_handler(number: int, handler: Handler) -> None:
    """Set a signal's handler.

    Raises:
        ValueError: this is not the main thread of the main interpreter.
    """
    # The lower module takes SIG_DFL and SIG_IGN as plain numbers alone.
    _module.signal(number, int(handler) if isinstance(handler, int) else handler)
