"""Pickles that say so when they are loaded, in place of ones that do harm."""

import json
from typing import Any

from tests.support.receiving import event
from wove.serialization import dumps, encode

unpickled: list[str] = []


class Tripwire:
    """Says so when its pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A function of a module, which is pickled by its name: the list's own method would bring a copy of the list.
        return _trip, ()


def _trip() -> None:
    unpickled.append("loaded")


class Raises:
    """Raises an exception when its pickle is loaded."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise, (self.error,)


def _raise(error: type[BaseException]) -> None:
    raise error("from the pickle")


def tripwire(run_id: str = "a", kind: str = "task_result") -> bytes:
    """Return the body of an event with such a pickle."""
    return json.dumps(event(run_id, kind, result_pickle=encode(dumps(Tripwire(), what="it")))).encode()
