"""Arguments that travel apart from their payload, for backends with a store of their own: each crosses once, however
many runs need it.

On the weave's side an `Apart` takes the argument's place; when the worker rebuilds the arguments, the value comes from
those that `values_apart` has announced.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from wove.errors import SerializationError
from wove.serialization import loads


class Apart:
    """A pickled argument, and its placeholder in the arguments. Compared by identity.

    Attributes:
        key: the hexadecimal SHA-256 of `data`.
        data: the pickle.
    """

    __slots__ = ("__weakref__", "data", "key")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.key = hashlib.sha256(data).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return _take, (self.key,)


class Pickled:
    """A pickled argument that travels in the arguments after all, because it is small; it is not pickled again."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self.data,)


_announced: ContextVar[Mapping[str, bytes] | None] = ContextVar("wove_values_apart", default=None)


@contextmanager
def values_apart(values: Mapping[str, bytes]) -> Iterator[None]:
    """Let payloads that are executed in the block find the arguments that travelled apart from them.

    Args:
        values: the pickles under their keys, see `Apart`.
    """
    token = _announced.set(values)
    try:
        yield
    finally:
        _announced.reset(token)


def _take(key: str) -> Any:
    announced = _announced.get()
    if announced is None:
        raise SerializationError("An argument travels apart from its payload, and this worker does not know how.")
    data = announced.get(key)
    # What is signed is the payload, and with it the key.
    if data is None or hashlib.sha256(data).hexdigest() != key:
        raise SerializationError("An argument that travelled apart from its payload did not arrive, or not as it was.")
    return loads(data, what="an argument")
