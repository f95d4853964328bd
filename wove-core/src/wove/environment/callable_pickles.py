"""Pickles of functions, made once for many runs where that makes no difference."""

import sys
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from wove.backend.execution import is_coroutine_function
from wove.serialization import any_module_by_value, dumps

_MOST = 64
_LARGEST = 1 << 16

# Nothing of these types can change, so the same object always makes the same pickle.
_CONSTANT = frozenset({bool, int, float, complex, str, bytes, type(None), type(...), range, CodeType})
_BY_REFERENCE = object()


class PickledCallable(NamedTuple):
    """A callable ready to be sent.

    Attributes:
        pickle: its pickle.
        reusable: a worker may keep for the next run what it rebuilds from the pickle.
    """

    pickle: bytes
    reusable: bool


class _Entry(NamedTuple):
    function: FunctionType
    is_coroutine: bool
    captured: list[object] | None
    pickled: PickledCallable


class CallablePickles:
    """Pickles callables for one session.

    A function that is sent by value takes the variables along that it uses. Its pickle is used again only if every one
    of them is the same constant as before, so no change of a variable is missed.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def is_coroutine(self, function: Callable[..., Any]) -> bool:
        """Tell whether a callable makes coroutines."""
        entry = self._entries.get(id(function))
        return is_coroutine_function(function) if entry is None else entry.is_coroutine

    def get(self, function: Callable[..., Any], *, what: object) -> PickledCallable:
        """Return the pickle of a callable. Raises `SerializationError` where there is none."""
        if type(function) is not FunctionType or any_module_by_value():
            return PickledCallable(dumps(function, what=what), reusable=False)
        entry = self._entries.get(id(function))
        captured = _captured_by(function)
        if entry is not None and _same(captured, entry.captured):
            return entry.pickled
        pickle = dumps(function, what=what)
        pickled = PickledCallable(pickle, reusable=captured is not None and len(pickle) <= _LARGEST)
        self._keep(_Entry(function, is_coroutine_function(function), captured if pickled.reusable else None, pickled))
        return pickled

    def _keep(self, entry: _Entry) -> None:
        # The function itself is kept, too: its id must not become that of another one.
        self._entries.pop(id(entry.function), None)
        if len(self._entries) >= _MOST:
            del self._entries[next(iter(self._entries))]
        self._entries[id(entry.function)] = entry


def _same(captured: list[object] | None, before: list[object] | None) -> bool:
    if captured is None or before is None or len(captured) != len(before):
        return False
    return all(map(is_, captured, before))


def _captured_by(function: FunctionType) -> list[object] | None:
    """Return everything that makes up a function's pickle; None if part of it may change without being replaced."""
    if _is_importable(function):
        return [_BY_REFERENCE]
    found: list[object] = []
    return found if _collect(function, found, {id(function)}) else None


def _collect(function: FunctionType, found: list[object], seen: set[int]) -> bool:
    """Append what a function that is sent by value takes along; tell whether all of it is constant."""
    if function.__dict__:
        return False
    found.append(function.__code__)
    return all(_collect_value(value, found, seen) for value in _taken_along(function))


def _taken_along(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # Not assigned yet; when it is, there is one value more.
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from function.__annotations__.values()
    variables = function.__globals__
    yield from (variables[name] for name in _names_in(function.__code__) if name in variables)


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names of all global variables that code may use, its inner functions' included."""
    yield from code.co_names
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _names_in(constant)


def _collect_value(value: object, found: list[object], seen: set[int]) -> bool:
    found.append(value)
    kind = type(value)
    if kind in _CONSTANT or id(value) in seen:
        return True
    if kind is tuple or kind is frozenset:
        return _collect_all(value, found, seen)  # type: ignore[arg-type]
    if kind is ModuleType:
        return sys.modules.get(value.__name__) is value  # type: ignore[attr-defined]
    if kind is BuiltinFunctionType:
        return isinstance(value.__self__, ModuleType | None)  # type: ignore[attr-defined]
    if kind is FunctionType:
        seen.add(id(value))
        return _is_importable(value) or _collect(value, found, seen)  # type: ignore[arg-type]
    return isinstance(value, type) and _is_importable(value)


def _collect_all(values: Iterable[object], found: list[object], seen: set[int]) -> bool:
    return all(_collect_value(value, found, seen) for value in values)


def _is_importable(thing: FunctionType | type) -> bool:
    """Tell whether a function or class is sent as the name of what another process imports."""
    name, module_name = thing.__qualname__, thing.__module__
    if module_name == "__main__" or "." in name:
        return False
    return getattr(sys.modules.get(module_name), name, None) is thing
