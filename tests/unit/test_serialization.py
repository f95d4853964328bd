"""Values as bytes and back, and what is said about those that cannot travel."""

import asyncio
import pickle
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wove
from wove import serialization
from wove.errors import MissingDispatchFeatureError, SerializationError
from wove.serialization import decode, describe, dump_pieces, dumps, encode, loads, require_serializer

LOCK = threading.Lock()


def _round_trip(value: Any) -> Any:
    return loads(dumps(value, what="it"), what="it")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=20))
def test_plain_values_come_back_equal(value: object) -> None:
    assert _round_trip(value) == value


@pytest.mark.parametrize(
    "value",
    ["\ud800", 10**5000, float("inf"), {1: {2: {3}}}, ...],
    ids=["surrogate", "big", "infinite", "nested", "..."],
)
def test_odd_values_come_back_equal(value: object) -> None:
    assert _round_trip(value) == value


def test_nan_and_cycles_come_back() -> None:
    nan = _round_trip(float("nan"))
    assert nan != nan
    cycle: list[object] = []
    cycle.append(cycle)
    rebuilt = _round_trip(cycle)
    assert rebuilt[0] is rebuilt


def test_functions_that_only_this_process_knows_travel() -> None:
    offset = 40

    async def add(number: int) -> int:
        return number + offset

    assert asyncio.run(_round_trip(add)(2)) == 42
    assert _round_trip(lambda number: number * 2)(21) == 42


def test_a_function_of_the_program_that_names_the_package_travels() -> None:
    program: dict[str, Any] = {"__name__": "__main__"}
    exec("import wove\ndef task(rows):\n    return wove.flatten(rows), wove", program)
    assert _round_trip(program["task"])([[1], [2]]) == ([1, 2], wove)


def test_large_bytes_are_passed_on_without_a_copy() -> None:
    data = bytes(5_000_000)
    assert any(piece is data for piece in dump_pieces([data], what="it"))
    assert _round_trip([data]) == [data]


def test_bytes_that_may_change_are_copied() -> None:
    data = bytearray(b"before" * 20_000)
    pieces = dump_pieces(data, what="it")
    data[:6] = b"after!"
    assert loads(b"".join(pieces), what="it") == b"before" * 20_000


class Holder:
    def __init__(self, held: object) -> None:
        self.held = held


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held


class Raising:
    def __reduce__(self) -> str:
        raise ValueError("stays here")


def _closing_over(held: object) -> Callable[[], object]:
    return lambda: held


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (LOCK, "a value of type 'lock' cannot"),
        ([1, {"key": (LOCK,)}], "a value of type 'lock' at [1]['key'][0] cannot"),
        (Holder(Holder(LOCK)), "a value of type 'lock' at held.held cannot"),
        (Slotted(LOCK), "a value of type 'lock' at held cannot"),
        (_closing_over(LOCK), "a value of type 'lock' at closure variable 'held' cannot"),
        ([Raising()], "a value of type 'Raising' at [0] cannot"),
        ((number for number in "ab"), "a value of type 'generator' cannot"),
    ],
    ids=["itself", "container", "attribute", "slot", "closure", "reduce", "generator"],
)
def test_the_innermost_part_that_cannot_be_pickled_is_named(value: object, part: str) -> None:
    with pytest.raises(SerializationError) as raised:
        dumps(value, what="the result of task 'report'")
    message = str(raised.value)
    assert message.startswith("Cannot send the result of task 'report': ")
    assert part in message
    assert raised.value.__cause__ is not None


def test_the_search_for_it_ends_soon_in_a_large_value() -> None:
    value = [*range(300_000), *([n] for n in range(300_000)), LOCK]
    began = time.monotonic()
    with pytest.raises(SerializationError, match="cannot be pickled"):
        dumps(value, what="it")
    assert time.monotonic() - began < 10


def test_a_missing_module_is_named_with_what_to_do() -> None:
    with pytest.raises(
        SerializationError, match=r"Cannot rebuild the callable: the module 'not_here' is not installed"
    ):
        loads(b"cnot_here\nfunction\n.", what="the callable")


def test_a_module_that_lacks_the_name_asks_for_the_same_version_of_the_code() -> None:
    with pytest.raises(SerializationError, match=r"no_such_function.*same version of your code"):
        loads(b"cos\nno_such_function\n.", what="the callable")


@pytest.mark.parametrize("data", [b"", b"garbage", pickle.dumps(1)[:-1]])
def test_damaged_bytes_are_a_serialization_error(data: bytes) -> None:
    with pytest.raises(SerializationError, match=r"Cannot rebuild it: .*[^.]\.\Z"):
        loads(data, what="it")


@pytest.mark.parametrize(("origin", "named"), [("3.99.0", True), (serialization.PYTHON_VERSION, False), (None, False)])
def test_python_versions_are_named_where_they_differ(origin: str | None, named: bool) -> None:
    with pytest.raises(SerializationError) as raised:
        loads(b"garbage", what="it", origin=origin)
    assert ("made by Python 3.99.0" in str(raised.value)) is named


def test_the_version_is_this_interpreter_s() -> None:
    assert serialization.PYTHON_VERSION.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_a_serialization_error_travels() -> None:
    error = _round_trip(SerializationError("told"))
    assert (type(error), str(error)) == (SerializationError, "told")


@given(st.binary())
def test_base64_comes_back(data: bytes) -> None:
    assert decode(encode(data)) == data


@pytest.mark.parametrize("text", ["no base64!", "ü", "abc"])
def test_what_is_not_base64_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(text)


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (Wordless(), "Wordless: <its message cannot be shown>"),
    ],
)
def test_any_exception_can_be_described(error: Exception, words: str) -> None:
    assert describe(error) == words


def test_without_cloudpickle_the_feature_and_the_command_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "cloudpickle", None)
    with pytest.raises(MissingDispatchFeatureError, match=r'pip install "wove\[dispatch\]"'):
        dumps([print], what="it")
    with pytest.raises(MissingDispatchFeatureError, match="The stdio executor"):
        require_serializer("The stdio executor")
