"""`flatten fold batch undict redict denone sync_to_async`."""

import contextvars
import threading
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wove
from wove.helpers import batch, denone, flatten, fold, redict, sync_to_async, undict

ITEMS = st.lists(st.integers(), max_size=30)


def test_flatten_takes_one_level_away() -> None:
    assert flatten([[1, 2], [], [3]]) == [1, 2, 3]
    assert flatten([[[1]], [[2]]]) == [[1], [2]]
    assert flatten(range(count) for count in (2, 3)) == [0, 1, 0, 1, 2]
    assert flatten([]) == []


def test_fold_cuts_into_chunks_of_a_size() -> None:
    assert fold([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert fold(iter("abc"), 3) == [["a", "b", "c"]]
    assert fold([], 3) == []


def test_batch_cuts_into_a_number_of_chunks() -> None:
    assert batch([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]
    assert batch(range(10), 3) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert batch(iter("ab"), 3) == [["a"], ["b"], []]


@given(ITEMS, st.integers(1, 40))
def test_fold_keeps_every_item_in_order_in_full_chunks(items: list[int], size: int) -> None:
    chunks = fold(items, size)
    assert flatten(chunks) == items
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= size for chunk in chunks)


@given(ITEMS, st.integers(1, 40))
def test_batch_keeps_every_item_in_order_in_even_chunks(items: list[int], count: int) -> None:
    chunks = batch(items, count)
    assert flatten(chunks) == items
    assert len(chunks) == count
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("cut", [fold, batch])
@pytest.mark.parametrize("number", [0, -1])
def test_sizes_below_one_are_refused(cut: Callable[[list[int], int], object], number: int) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1, not {number}"):
        cut([1], number)


def test_undict_makes_pairs_and_redict_takes_them_back() -> None:
    assert undict({"a": 1, "b": 2}) == [["a", 1], ["b", 2]]
    assert redict([["a", 1], ["b", 2]]) == {"a": 1, "b": 2}
    assert redict([("a", 1), ("a", 2)]) == {"a": 2}


@given(st.dictionaries(st.text(), st.integers()))
def test_redict_undoes_undict(mapping: dict[str, int]) -> None:
    assert redict(undict(mapping)) == mapping


def test_redict_refuses_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="length 3"):
        redict([["a", 1, 2]])


def test_denone_drops_none_and_nothing_else() -> None:
    assert denone([0, None, "", False, None, []]) == [0, "", False, []]


def test_the_helpers_are_the_package_s() -> None:
    assert (wove.flatten, wove.fold, wove.batch, wove.undict) == (flatten, fold, batch, undict)
    assert (wove.redict, wove.denone, wove.sync_to_async) == (redict, denone, sync_to_async)


async def test_sync_to_async_calls_in_a_thread_with_the_arguments() -> None:
    def add(one: int, *, other: int) -> tuple[int, threading.Thread]:
        """Add."""
        return one + other, threading.current_thread()

    wrapped = sync_to_async(add)
    total, thread = await wrapped(1, other=2)
    assert total == 3
    assert thread is not threading.current_thread()
    assert (wrapped.__name__, wrapped.__doc__) == ("add", "Add.")


async def test_sync_to_async_carries_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    assert await sync_to_async(variable.get)() == "here"


async def test_sync_to_async_raises_what_the_function_raises() -> None:
    error = KeyError("x")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        await sync_to_async(fail)()
    assert caught.value is error


async def test_sync_to_async_turns_stop_iteration_into_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await sync_to_async(next)(iter(()))
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_sync_to_async_takes_partials_and_callable_objects() -> None:
    class Double:
        def __call__(self, number: int) -> int:
            return 2 * number

    assert await sync_to_async(partial(pow, 2))(3) == 8
    assert await sync_to_async(Double())(4) == 8


async def test_sync_to_async_leaves_coroutine_functions_as_they_are() -> None:
    async def one() -> int:
        return 1

    class Two:
        async def __call__(self) -> int:
            return 2

    two = Two()
    assert sync_to_async(one) is one
    assert sync_to_async(two) is two
