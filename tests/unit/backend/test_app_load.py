"""Many and large events at once: all of them arrive."""

import asyncio

from tests.support.receiving import MIB, Connection, Receiving, event, signature
from wove.backend.frames import frame_to_bytes


async def test_5000_heartbeats_are_served(receiver: Receiving) -> None:
    key = await receiver.open_run("a")
    body = frame_to_bytes(event("a"))

    async def beat(worker: str) -> None:
        async with Connection(receiver.url) as connection:
            for number in range(1, 501):
                headers = signature(str(key), "a", body, worker="w", sequence=int(f"{worker}{number:03}"))
                await connection.send(connection.head("POST", {**headers, "content-length": str(len(body))}) + body)
                assert (await connection.answer()).status == 200

    await asyncio.gather(*(beat(str(worker)) for worker in range(1, 11)))
    assert 0 < len(await receiver.received_so_far()) <= 5000


async def test_200_results_at_once_all_arrive(receiver: Receiving) -> None:
    keys = {f"run-{number}": await receiver.open_run(f"run-{number}") for number in range(200)}
    answers = await asyncio.gather(
        *(receiver.post(event(run, "task_result", result=run), key=key) for run, key in keys.items())
    )
    assert {answer.status for answer in answers} == {200}
    frames = await receiver.received_so_far()
    assert {frame["run_id"]: frame["result"] for frame in frames} == {run: run for run in keys}


async def test_a_result_of_64_megabytes_is_delivered_and_others_are_served_meanwhile(receiver: Receiving) -> None:
    key = await receiver.open_run("large")
    other = await receiver.open_run("other")
    value = b"\x00\xff" * (32 * MIB)
    body = await asyncio.to_thread(frame_to_bytes, event("large", "task_result", result=value))
    sending = asyncio.ensure_future(receiver.post(body, key=key))
    beats = 0
    while not sending.done():
        beats += 1
        assert (await receiver.post(event("other"), key=other, sequence=beats)).status == 200
    assert (await sending).status == 200
    frames = [frame for frame in await receiver.received_so_far() if frame["run_id"] == "large"]
    assert frames[0]["result"] == value
    assert beats > 2
