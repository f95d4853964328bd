"""Arguments that travel apart from their payload find back into it."""

import pickle

import pytest

from wove.backend.apart import Apart, Pickled, values_apart
from wove.errors import SerializationError


def test_an_argument_comes_back_where_its_placeholder_was() -> None:
    apart = Apart(pickle.dumps([1, 2, 3]))
    travelled = pickle.dumps({"table": apart, "again": apart, "row": 7})
    with values_apart({apart.key: apart.data}):
        args = pickle.loads(travelled)
    assert args == {"table": [1, 2, 3], "again": [1, 2, 3], "row": 7}
    assert args["table"] is args["again"]


def test_the_placeholder_is_small() -> None:
    assert len(pickle.dumps(Apart(bytes(1_000_000)))) < 200


def test_a_small_argument_needs_nothing_announced() -> None:
    assert pickle.loads(pickle.dumps(Pickled(pickle.dumps([1, 2])))) == [1, 2]


@pytest.mark.parametrize("data", [None, pickle.dumps("something else")])
def test_nothing_else_is_rebuilt_in_its_place(data: bytes | None) -> None:
    apart = Apart(pickle.dumps("the table"))
    values = {} if data is None else {apart.key: data}
    with values_apart(values), pytest.raises(SerializationError, match="did not arrive, or not as it was"):
        pickle.loads(pickle.dumps(apart))


def test_a_worker_that_announces_nothing_says_so() -> None:
    with pytest.raises(SerializationError, match="does not know how"):
        pickle.loads(pickle.dumps(Apart(b"")))
