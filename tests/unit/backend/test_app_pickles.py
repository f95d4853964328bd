"""Which pickles the receiver loads, and what becomes of one that raises."""

import json

import pytest

from tests.support.receiving import MIB, Receiving, event, receiving, still_works
from tests.support.tripwire import Raises, tripwire, unpickled
from wove.backend.frames import frame_to_bytes
from wove.serialization import dumps, encode

pytestmark = pytest.mark.usefixtures("untouched_tripwire")


async def test_a_pickle_for_an_unknown_run_is_not_unpickled(receiver: Receiving) -> None:
    assert (await receiver.post(tripwire("stranger"))).status == 410
    assert unpickled == []


async def test_a_pickle_for_a_run_that_is_over_is_not_unpickled(receiver: Receiving) -> None:
    await receiver.open_run("a")
    await receiver.close_run("a")
    assert (await receiver.post(tripwire("a"))).status == 410
    assert unpickled == []


async def test_a_pickle_in_a_heartbeat_is_ignored(receiver: Receiving) -> None:
    await receiver.open_run("a")
    assert (await receiver.post(tripwire("a", "heartbeat"))).status == 200
    assert await receiver.recv() == event("a")
    assert unpickled == []


async def test_json_only_refuses_pickles_and_takes_plain_values() -> None:
    async with receiving(results="json") as receiver:
        await receiver.open_run("a")
        await receiver.open_run("b")
        plain = frame_to_bytes(event("a", "task_result", result={"rows": 3}), pickles=False)
        assert (await receiver.post(plain)).status == 200
        assert (await receiver.recv())["result"] == {"rows": 3}
        assert (await receiver.post(tripwire("b"))).status == 200
        refused = await receiver.recv()
        assert refused["type"] == "task_error"
        assert "results='json'" in refused["error"]["message"]
        assert unpickled == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration, ValueError])
@pytest.mark.parametrize("padding", [0, MIB])
async def test_a_result_whose_pickle_raises_ends_its_run_with_the_reason(
    receiver: Receiving, error: type[BaseException], padding: int
) -> None:
    await receiver.open_run("a")
    broken = encode(dumps(Raises(error), what="it"))
    body = json.dumps(event("a", "task_result", result_pickle=broken, padding="x" * padding)).encode()
    assert (await receiver.post(body)).status == 200
    frame = await receiver.recv()
    assert (frame["type"], frame["run_id"]) == ("task_error", "a")
    assert "from the pickle" in frame["error"]["message"]
    assert await still_works(receiver)
