"""What a work horse that was forked before its job was there still has to learn from its worker."""

import io
import pickle
from collections.abc import Iterable
from typing import Any

import rq.job
from rq import Worker


class Parcels:
    """Takes what the worker has, and its spare has not, from one to the other. Made before the fork, for both.

    What both had then is only named: some of it cannot be pickled, such as the connection, and some RQ knows by its
    identity. Lists, sets and dictionaries are not named: they change in place.
    """

    def __init__(self, worker: Worker) -> None:
        self._known = [worker, *_marks(), *_attributes(worker)]
        self._before = {name: (value, _parts(value)) for name, value in vars(worker).items()}

    def news(self, worker: Worker) -> dict[str, Any]:
        """Return the worker's attributes that have been set since, and its lists and the like with other contents."""
        return {name: value for name, value in vars(worker).items() if self._is_news(name, value)}

    def packed(self, value: object) -> bytes | None:
        """Pickle something; None if that cannot be done."""
        file = io.BytesIO()
        pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.known = {id(each): number for number, each in enumerate(self._known)}
        try:
            pickler.dump(value)
        except Exception:  # A job's class and its meta are the user's.
            return None
        return file.getvalue()

    def unpacked(self, parcel: bytes) -> Any:
        """Return, in the spare, what the worker packed."""
        unpickler = _Unpickler(io.BytesIO(parcel))
        unpickler.known = self._known
        return unpickler.load()

    def _is_news(self, name: str, value: object) -> bool:
        before, parts = self._before.get(name, (self, []))
        if before is not value:
            return True
        now = _parts(value)
        return len(now) != len(parts) or any(new is not old for new, old in zip(now, parts, strict=True))


class _Pickler(pickle.Pickler):
    known: dict[int, int]

    def persistent_id(self, obj: Any) -> int | None:
        return self.known.get(id(obj))


class _Unpickler(pickle.Unpickler):
    known: list[Any]

    def persistent_load(self, pid: int) -> Any:
        return self.known[pid]


def _marks() -> Iterable[object]:
    # With such an object RQ marks the parts of a job that it has not looked at yet.
    return [value for _, value in sorted(vars(rq.job).items()) if type(value) is object]


def _attributes(worker: Worker) -> Iterable[object]:
    for value in vars(worker).values():
        if isinstance(value, list | set | dict):
            yield from _parts(value)
        else:
            yield value


def _parts(value: object) -> list[object]:
    """Return what a list, a set or a dictionary has in it; nothing for what is none."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return [*value] if isinstance(value, list | set) else []
