"""A pickle that says so when it is loaded, in place of one that does harm."""

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


def tripwire(run_id: str = "a", kind: str = "task_result") -> bytes:
    """Return the body of an event with such a pickle."""
    return json.dumps(event(run_id, kind, result_pickle=encode(dumps(Tripwire(), what="it")))).encode()
