"""Small functions for the data that flows between tasks."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def flatten(nested: Iterable[Iterable[T]]) -> list[T]:
    """Return the items of the inner iterables as one list; one level is taken away, no more.

    >>> flatten([[1, 2], [3]])
    [1, 2, 3]
    """
    return [item for inner in nested for item in inner]


def fold(items: Iterable[T], size: int) -> list[list[T]]:
    """Cut items into lists of `size`, in order; the last one may be shorter.

    >>> fold([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4], [5]]

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"fold: size must be at least 1, not {size!r}.")
    pool = list(items)
    return [pool[start : start + size] for start in range(0, len(pool), size)]


def batch(items: Iterable[T], count: int) -> list[list[T]]:
    """Cut items into `count` lists, in order, of sizes that differ by at most one; too few items leave some empty.

    >>> batch([1, 2, 3, 4, 5], 2)
    [[1, 2, 3], [4, 5]]

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"batch: count must be at least 1, not {count!r}.")
    pool = list(items)
    size, longer = divmod(len(pool), count)
    starts = [index * size + min(index, longer) for index in range(count + 1)]
    return [pool[start:end] for start, end in pairwise(starts)]


def undict(mapping: Mapping[K, V]) -> list[list[K | V]]:
    """Return a mapping as a list of ``[key, value]``, to map over; `redict` is the way back.

    >>> undict({"a": 1, "b": 2})
    [['a', 1], ['b', 2]]
    """
    return [[key, value] for key, value in mapping.items()]


@overload
def redict(pairs: Iterable[tuple[K, V]]) -> dict[K, V]: ...
@overload
def redict(pairs: Iterable[Iterable[Any]]) -> dict[Any, Any]: ...
def redict(pairs: Iterable[Any]) -> dict[Any, Any]:
    """Return the dict of ``[key, value]`` pairs; of pairs with the same key the last one counts.

    >>> redict([["a", 1], ["b", 2]])
    {'a': 1, 'b': 2}

    Raises:
        ValueError: an item is no pair.
    """
    return dict(pairs)


def denone(items: Iterable[T | None]) -> list[T]:
    """Return the items that are not None; other empty values stay.

    >>> denone([0, None, ""])
    [0, '']
    """
    return [item for item in items if item is not None]


@overload
def sync_to_async(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def sync_to_async(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]: ...
def sync_to_async(function: Callable[P, Any]) -> Callable[P, Coroutine[Any, Any, Any]]:
    """Return a coroutine function that calls a synchronous function in a thread, with the caller's context variables.

    A coroutine function is returned as it is. Cancelling the coroutine does not stop the thread.
    """
    from asyncio import to_thread
    from functools import wraps
    from inspect import iscoroutinefunction

    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return function

    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            # A future refuses this exception, and its awaiter would wait for ever. Generators do the same (PEP 479).
            raise RuntimeError(f"{function!r} raised StopIteration") from error

    @wraps(function)
    async def call_in_thread(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await to_thread(call, *args, **kwargs)

    return call_in_thread
