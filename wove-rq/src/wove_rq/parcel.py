"""What a work horse that was forked before its job was there still has to learn from its worker."""

import io
import pickle
from typing import Any

import rq.job
from rq import Worker


def packed(worker: Worker, value: object) -> bytes | None:
    """Pickle what the worker has and its spare has not; None if that cannot be done.

    What both have is only named: the connection, which cannot be pickled, and what RQ knows by its identity.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.known = {id(each): number for number, each in enumerate(_in_common(worker))}
    try:
        pickler.dump(value)
    except Exception:  # A job's class and its meta are the user's.
        return None
    return file.getvalue()


def unpacked(worker: Worker, parcel: bytes) -> Any:
    """Return, in the spare, what the worker packed."""
    unpickler = _Unpickler(io.BytesIO(parcel))
    unpickler.known = _in_common(worker)
    return unpickler.load()


class _Pickler(pickle.Pickler):
    known: dict[int, int]

    def persistent_id(self, obj: Any) -> int | None:
        return self.known.get(id(obj))


class _Unpickler(pickle.Unpickler):
    known: list[Any]

    def persistent_load(self, pid: int) -> Any:
        return self.known[pid]


def _in_common(worker: Worker) -> list[Any]:
    # With such an object RQ marks the parts of a job that it has not looked at yet.
    marks = [value for _, value in sorted(vars(rq.job).items()) if type(value) is object]
    return [worker, worker.connection, worker.serializer, *worker.queues, *marks]
