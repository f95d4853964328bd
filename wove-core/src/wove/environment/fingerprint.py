"""Tells whether two configurations are the same, also where they hold live objects such as clients."""

from collections.abc import Hashable, Mapping
from typing import Any

_PLAIN = (str, bytes, int, float, bool, type(None))


class _Same:
    """Equal to itself alone. Keeps the object alive, so that no other one takes over its identity."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def fingerprint(value: Any) -> Hashable:
    """Return a hashable stand-in: equal for equal plain values, mappings and sequences; else equal by identity."""
    if type(value) in _PLAIN:
        # 1, 1.0 and True are equal, but not the same configuration.
        return type(value), value
    if isinstance(value, Mapping):
        return "mapping", frozenset((fingerprint(key), fingerprint(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "sequence", tuple(fingerprint(item) for item in value)
    if isinstance(value, set | frozenset):
        return "set", frozenset(fingerprint(item) for item in value)
    return _Same(value)
