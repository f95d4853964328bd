"""Large arguments leave frames, each once however many runs need it."""

from collections.abc import Iterator
from typing import Any

import pytest

from wove.backend.apart import Apart, Pickled
from wove.environment.packing import is_small
from wove.environment.parting import SMALLEST_BYTES, Parting
from wove.errors import SerializationError


class Counted:
    """Counts how often it is pickled."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pickled = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        self.pickled += 1
        return bytes, (bytes(self.size),)  # type: ignore[return-value]


@pytest.fixture
async def parting() -> Any:
    return Parting()


@pytest.fixture(autouse=True)
def closed(parting: Parting) -> Iterator[None]:
    yield
    parting.close()


def frame(weave: str = "w", **args: Any) -> dict[str, Any]:
    return {"run_id": "r", "task_id": "t", "task_name": "count", "args": args, "weave": weave}


async def test_a_frame_of_small_arguments_stays_as_it_is(parting: Parting) -> None:
    small = frame(a=1, b=["x"], c=b"y")
    assert await parting.part(small) is small


async def test_a_large_argument_leaves_the_frame(parting: Parting) -> None:
    table = bytes(SMALLEST_BYTES + 1)
    original = frame(table=table, row=7)
    parted = await parting.part(original)
    (apart,) = parted["apart"]
    assert isinstance(apart, Apart)
    assert parted["args"] == {"table": apart, "row": 7}
    assert is_small(parted["args"])
    assert original["args"]["table"] is table


async def test_what_turns_out_to_be_small_stays_and_is_not_pickled_again(parting: Parting) -> None:
    small = Counted(10)
    parted = await parting.part(frame(small=small))
    assert parted["apart"] == []
    assert isinstance(parted["args"]["small"], Pickled)
    assert is_small(parted["args"])
    assert small.pickled == 1


async def test_an_argument_that_runs_of_a_weave_share_is_pickled_once(parting: Parting) -> None:
    table = Counted(SMALLEST_BYTES)
    parted = [await parting.part(frame(table=table, row=row)) for row in range(3)]
    assert table.pickled == 1
    assert len({id(each["args"]["table"]) for each in parted}) == 1


async def test_another_weave_gets_the_argument_as_it_is_by_then(parting: Parting) -> None:
    table = Counted(SMALLEST_BYTES)
    first = await parting.part(frame(table=table))
    table.size += 1
    second = await parting.part(frame("another", table=table))
    assert table.pickled == 2
    assert first["apart"][0].key != second["apart"][0].key


async def test_what_cannot_be_pickled_is_named_with_its_task(parting: Parting) -> None:
    with pytest.raises(SerializationError, match="the argument 'lock' of task 'count'"):
        await parting.part(frame(lock=(_ for _ in ())))
