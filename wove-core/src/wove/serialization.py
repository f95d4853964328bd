"""Turns Python values into bytes and back: the only place that imports cloudpickle.

Nothing here verifies where bytes come from; whoever calls `loads` has authenticated them first.
"""

import base64
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from wove.errors import MissingDispatchFeatureError, SerializationError

try:
    import cloudpickle
except ImportError:
    cloudpickle = None

# What `platform.python_version` returns, without the import.
PYTHON_VERSION = sys.version.split()[0]

# The search for the part that cannot be pickled ends after so many tries; what these types hold is never one.
_MOST_TRIES = 2000
_SMALL = 4096
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})


def require_serializer(feature: str) -> None:
    """Raise `MissingDispatchFeatureError` unless the dispatch serializer is installed."""
    if cloudpickle is None:
        raise MissingDispatchFeatureError(feature)


def any_module_by_value() -> bool:
    """Tell whether the program has asked for importable code to be pickled by value.

    See https://github.com/cloudpipe/cloudpickle#overriding-pickles-serialization-mechanism-for-importable-constructs.
    """
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def dumps(value: object, *, what: object) -> bytes:
    """Pickle a value, functions and classes of ``__main__`` by value.

    Args:
        value: anything.
        what: names the value in the error, e.g. ``"the result of task 'report'"``; turned into a string only then.

    Raises:
        SerializationError: it cannot be pickled; the message names the innermost part that cannot.
        MissingDispatchFeatureError: cloudpickle is not installed.
    """
    return b"".join(dump_pieces(value, what=what))


def dump_pieces(value: object, *, what: object) -> list[bytes]:
    """Pickle a value like `dumps`, into pieces that are to be joined: large bytes objects in it are not copied."""
    if _is_plain(value):
        return [pickle.dumps(value, pickle.HIGHEST_PROTOCOL)]
    require_serializer("Sending tasks to another process")
    pieces = _Pieces()
    try:
        cloudpickle.Pickler(pieces, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:  # Any __reduce__ of a user's class may raise anything.
        part = _Search().describe(value) or "it"
        raise SerializationError(f"Cannot send {what}: {part} cannot be pickled ({describe(error)}).") from error
    return pieces.pieces


def _is_plain(value: object) -> bool:
    """Tell whether a value is one that every pickler treats alike, so that the fastest will do."""
    if type(value) is dict:
        # A loop: a generator would take longer than the rest.
        for name, part in value.items():  # noqa: SIM110
            if type(name) is not str or not _is_small(part):
                return False
        return True
    return _is_small(value)


def _is_small(value: object) -> bool:
    # Only the slower pickler spares large texts and bytes a copy.
    if type(value) is str or type(value) is bytes:
        return len(value) <= _SMALL
    return type(value) in _PLAIN


class _Pieces:
    """A file that keeps what is written into it. A pickler writes large bytes objects as they are."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview | pickle.PickleBuffer) -> None:
        # Other buffers may change, or be gone, before they have been sent.
        self.pieces.append(data if type(data) is bytes else bytes(data))


class PickleFile(Protocol):
    """What a pickle can be read from, see https://docs.python.org/3/library/pickle.html#pickle.Unpickler."""

    def read(self, size: int, /) -> bytes: ...

    def readinto(self, buffer: memoryview, /) -> int: ...

    def readline(self) -> bytes: ...


def loads(data: bytes | memoryview | PickleFile, *, what: object, origin: str | None = None) -> Any:
    """Rebuild a pickled value.

    Args:
        data: what `dumps` made, or a file of it. While a file's own Python code runs, other threads get their turn;
            bytes are rebuilt without a break.
        what: names the value in the error.
        origin: the Python version that made them; named in the error where it differs from this one.

    Raises:
        SerializationError: it cannot be rebuilt here; the message names the missing module if that is the reason.
    """
    try:
        # The types that there are in practice are told by the fastest questions.
        if type(data) is memoryview or isinstance(data, bytes):
            return pickle.loads(data)
        return pickle.Unpickler(data).load()
    except Exception as error:
        raise SerializationError(f"Cannot rebuild {what}: {_why_not_rebuilt(error)}{_versions(origin)}") from error


def encode(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes:
    """Return the bytes of a base64 text. Raises ValueError for anything else."""
    return base64.b64decode(text, validate=True)


def describe(error: BaseException) -> str:
    """Return ``"Kind: message"`` for any exception, also one whose ``__str__`` raises."""
    try:
        text = str(error)
    except Exception:  # A user's __str__ may raise anything.
        text = "<its message cannot be shown>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _why_not_rebuilt(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        import platform  # It takes its time, and only a failure needs it.

        # "Here" is often another machine than the one on which the message is read.
        return (
            f"the module {error.name!r} is not installed here, for {sys.executable} on {platform.node()}. Install it "
            "where the task runs and where it is read, or send a module of yours along: "
            "cloudpickle.register_pickle_by_value(module)."
        )
    if isinstance(error, AttributeError):
        return (
            f"{_sentence(error)} Is the same version of your code installed where the task runs and where it is read?"
        )
    return _sentence(error)


def _sentence(error: Exception) -> str:
    return f"{describe(error).rstrip('.')}."


def _versions(origin: str | None) -> str:
    if origin is None or origin.split(".")[:2] == PYTHON_VERSION.split(".")[:2]:
        return ""
    return f" It was made by Python {origin}; this is Python {PYTHON_VERSION}."


class _Search:
    """Looks for the innermost part of a value that cannot be pickled."""

    def __init__(self) -> None:
        self._tries = _MOST_TRIES

    def describe(self, value: object, path: str = "", depth: int = 0) -> str | None:
        """Return words for the innermost part that cannot be pickled, or None where everything can."""
        if depth > 4 or self._picklable(value):
            return None
        for step, part in _parts(value):
            found = self.describe(part, f"{path}{step}", depth + 1)
            if found:
                return found
        place = f" at {path.lstrip('. ')}" if path else ""
        return f"a value of type {type(value).__qualname__!r}{place}"

    def _picklable(self, value: object) -> bool:
        if type(value) in _PLAIN:
            return True
        self._tries -= 1
        if self._tries < 0:
            return True
        try:
            cloudpickle.dumps(value)
        except Exception:  # Any __reduce__ of a user's class may raise anything.
            return False
        return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif hasattr(value, "__closure__") and hasattr(value, "__code__"):
        yield from _captured(value)
    else:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if hasattr(value, name)]
        yield from ((f".{name}", getattr(value, name)) for name in [*getattr(value, "__dict__", ()), *slots])


def _captured(function: Any) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" closure variable {name!r}", cell.cell_contents
        except ValueError:  # The cell is still empty.
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__ and function.__module__ == "__main__":
            yield f" global {name!r}", function.__globals__[name]
