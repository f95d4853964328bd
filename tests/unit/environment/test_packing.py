"""Frames become payloads: once per callable, in a thread where it would take long."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from wove.backend.payload import join_payload
from wove.backend.signing import verify_payload
from wove.environment.packing import Packer, Packing, is_small
from wove.errors import SerializationError, SignatureError
from wove.serialization import decode, loads


class Pickled:
    """Counts how often it is pickled, and in which threads."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __reduce__(self) -> tuple[type, tuple[()]]:
        self.threads.append(threading.current_thread())
        return list, ()


def packer(**settings: Any) -> Packer:
    defaults: dict[str, Any] = {"adapter": "mem", "callback_url": "http://here/wove/events/x", "results": "pickle"}
    return Packer(Packing(**{**defaults, **settings}))


def frame(function: Callable[..., Any] = len, *, item: int | None = None, **args: Any) -> dict[str, Any]:
    return {"type": "run_task", "run_id": "r", "task_id": "t", "callable": function, "args": args, "item": item}


async def test_a_payload_has_the_fields_of_the_frame_and_of_the_session() -> None:
    payload, kept = await packer().pack(frame(obj="abc"), lease=30.0, limit=None)
    assert kept is None
    assert (payload["adapter"], payload["callback_url"]) == ("mem", "http://here/wove/events/x")
    assert (payload["run_id"], payload["lease"], payload["results"]) == ("r", 30.0, "pickle")
    assert loads(decode(payload["args_pickle"]), what="args") == {"obj": "abc"}
    json.dumps(payload)


def test_neither_token_nor_secret_is_shown() -> None:
    shown = repr(Packing("mem", "http://here/wove/events/hush-hush", "json", "env:VAR", b"hush-hush"))
    assert "env:VAR" in shown
    assert "hush" not in shown


async def test_what_exceeds_the_limit_stays_here() -> None:
    whole, _ = await packer().pack(frame(obj="x" * 10_000), lease=30.0, limit=None)
    payload, kept = await packer().pack(frame(obj="x" * 10_000), lease=30.0, limit=4096)
    assert kept is not None
    assert len(json.dumps(payload)) <= 4096
    assert join_payload(payload, kept) == whole


async def test_a_shared_secret_signs_what_travels_and_gives_no_key_away() -> None:
    secret = b"s" * 32
    for limit in (None, 4096):
        payload, _ = await packer(security="env:SECRET", secret=secret).pack(
            frame(obj="x" * 10_000), lease=30.0, limit=limit
        )
        assert payload["callback_security"] == "env:SECRET"
        assert "callback_key" not in payload
        verify_payload(payload, secret)
        with pytest.raises(SignatureError):
            verify_payload({**payload, "run_id": "other"}, secret)


async def test_the_callable_of_a_map_is_pickled_once() -> None:
    captured = Pickled()
    packs = packer()

    def function(obj: int) -> object:
        return captured

    frames = [frame(function, item=item, obj=item) for item in range(5)]
    payloads = [(await packs.pack(each, lease=30.0, limit=None))[0] for each in frames]
    assert len(captured.threads) == 1
    assert len({payload["callable_pickle"] for payload in payloads}) == 1
    assert len({payload["args_pickle"] for payload in payloads}) == 5


async def test_the_callable_of_a_single_task_is_pickled_as_it_is_now() -> None:
    state = [1]
    packs = packer()

    def function() -> list[int]:
        return state

    first, _ = await packs.pack(frame(function), lease=30.0, limit=None)
    state.append(2)
    second, _ = await packs.pack(frame(function), lease=30.0, limit=None)
    assert loads(decode(first["callable_pickle"]), what="")() == [1]
    assert loads(decode(second["callable_pickle"]), what="")() == [1, 2]


async def test_what_may_take_long_is_pickled_in_another_thread() -> None:
    unknown = Pickled()
    await packer().pack(frame(obj=unknown), lease=30.0, limit=None)
    assert unknown.threads != []
    assert threading.current_thread() not in unknown.threads


@pytest.mark.parametrize("args", [{}, {"obj": object()}])
async def test_an_unpicklable_value_is_an_error_that_names_the_task(args: dict[str, Any]) -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="'t'"):
        await packer().pack(frame(lambda: lock, **args), lease=30.0, limit=None)


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [1, [2.0, (True,)]], {"a": {"b": [None]}}, {1, 2}, []])
def test_small_plain_values_are_small(value: object) -> None:
    assert is_small(value)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", ["x" * 100_000, [b"x" * 50_000] * 2, list(range(2000)), [[0] * 900] * 2, {"a": object()}, endless()]
)
def test_large_or_unknown_values_are_not_known_to_be_small(value: object) -> None:
    assert not is_small(value)
