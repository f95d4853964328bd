"""What the adapter asks of AWS Batch and S3, and what it makes of their answers; no job starts here."""

import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from types import SimpleNamespace
from typing import Any

import pytest
from batch_backend import BatchServer

from tests.beds.batch_requests import NAME
from tests.beds.batch_server import BUCKET, CREDENTIALS, DEFINITION, QUEUE
from tests.support.relay import Relay
from wove.errors import ConfigurationError, DeliveryError, PayloadTooLargeError
from wove.testing.servers import free_port
from wove_batch import AWSBatchAdapter
from wove_batch.states import Submitted

ENDED = "Wove: nobody waits for this task any more"


@pytest.fixture
def config(server: BatchServer) -> Iterator[dict[str, Any]]:
    """A queue without hosts."""
    server.open_hosts(are_open=False)
    yield {"client_options": server.client_options(), "job_queue": QUEUE, "job_definition": DEFINITION}
    for job in server.jobs("SUBMITTED", "PENDING", "RUNNABLE"):
        server.batch.terminate_job(jobId=job["jobId"], reason="The test is over.")
    server.open_hosts(are_open=True)


@asynccontextmanager
async def started(config: Mapping[str, Any]) -> AsyncIterator[AWSBatchAdapter]:
    adapter = AWSBatchAdapter(
        name="batch", config=config, callback_url="http://127.0.0.1:1/wove/events/x", run_config={}
    )
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def submission(run_id: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    delivery, item = changes.pop("delivery", {}), changes.pop("item", None)
    payload = {"run_id": run_id, "task_name": "report", "callable_pickle": "c2VjcmV0", "deadline": None, **changes}
    return payload, {"run_id": run_id, "delivery": delivery, "item": item}


async def handles_of(adapter: AWSBatchAdapter, *submissions: Any) -> list[Submitted]:
    """Submit, and return the handles: nothing is refused."""
    handles = await adapter.submit_many(submissions)
    assert all(isinstance(handle, Submitted) for handle in handles), handles
    return [handle for handle in handles if isinstance(handle, Submitted)]


def named(server: BatchServer, name: str) -> list[dict[str, Any]]:
    return [server.job(job["jobId"]) for job in server.jobs() if job["jobName"] == name]


def variables(job: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in job["container"]["environment"]}


async def test_a_job_carries_the_payload_to_the_worker(server: BatchServer, config: dict[str, Any]) -> None:
    payload, frame = submission("carry-1")
    async with started(config) as adapter:
        handle = await adapter.submit(payload, frame)
    job = server.job(handle.job_id)
    assert job["jobName"] == "wove-carry-1"
    assert job["container"]["command"] == ["python", "-m", "wove.backend_worker"]
    assert json.loads(variables(job)["WOVE_BACKEND_PAYLOAD"]) == payload
    assert "timeout" not in job


async def test_with_a_bucket_nothing_of_the_payload_is_in_the_job(server: BatchServer, config: dict[str, Any]) -> None:
    payload, frame = submission("hidden-1", callback_key="hush-hush")
    async with started({**config, "payload_bucket": f"{BUCKET}/adapter"}) as adapter:
        handle = await adapter.submit(payload, frame)
        about = json.loads(variables(server.job(handle.job_id))["WOVE_BATCH_PAYLOAD"])
        assert server.objects() == ["adapter/wove-hidden-1.json"]
        stored = server.s3.get_object(Bucket=BUCKET, Key="adapter/wove-hidden-1.json")["Body"].read()
    assert json.loads(stored) == payload
    assert about.keys() == {"url", "region", "size", "digest"}
    shown = json.dumps(server.job(handle.job_id))
    assert "hush-hush" not in shown
    assert "c2VjcmV0" not in shown
    assert server.objects() == [], "a job that is not detached needs nothing any more"


async def test_a_detached_job_keeps_its_payload(server: BatchServer, config: dict[str, Any]) -> None:
    async with started({**config, "payload_bucket": BUCKET}) as adapter:
        await adapter.submit(*submission("detached-1", delivery={"delivery_orphan_policy": "detach"}))
    assert server.objects() == ["wove-detached-1.json"]
    server.s3.delete_object(Bucket=BUCKET, Key="wove-detached-1.json")


async def test_the_items_of_a_map_become_one_array_job(server: BatchServer, config: dict[str, Any]) -> None:
    items = [submission(f"item-{number}", item=number) for number in range(5)]
    async with started({**config, "payload_bucket": BUCKET}) as adapter:
        handles = await handles_of(adapter, *items, submission("alone-1"))
        states = await adapter.poll({f"item-{number}": handle for number, handle in enumerate(handles)})
        assert sorted(server.objects()) == ["wove-alone-1.json", "wove-item-0-5.json"]
    (array,) = named(server, "wove-item-0-5")[-1:]
    parent = handles[0].job_id.partition(":")[0]
    assert [handle.job_id for handle in handles[:5]] == [f"{parent}:{index}" for index in range(5)]
    assert len(named(server, "wove-alone-1")) == 1
    assert {state.phase for state in states.values()} == {"queued"}
    assert array["jobId"].startswith(parent)


async def test_without_arrays_each_item_has_its_job(server: BatchServer, config: dict[str, Any]) -> None:
    items = [submission(f"single-{number}", item=number) for number in range(3)]
    async with started({**config, "payload_bucket": BUCKET, "array_jobs": False}) as adapter:
        handles = await handles_of(adapter, *items)
    assert [handle.name for handle in handles] == [f"wove-single-{number}" for number in range(3)]


async def test_the_deadline_limits_how_long_a_job_runs(server: BatchServer, config: dict[str, Any]) -> None:
    async with started({**config, "timeout": 3600}) as adapter:
        short = await adapter.submit(*submission("short-1", deadline=time.time() + 100))
        shortest = await adapter.submit(*submission("short-2", deadline=time.time() + 10))
        plain = await adapter.submit(*submission("short-3"))
    limits = [server.job(each.job_id)["timeout"]["attemptDurationSeconds"] for each in (short, shortest, plain)]
    assert 100 <= limits[0] <= 106
    assert limits[1:] == [60, 3600]


@pytest.mark.parametrize("key", ["monthly-7", "account 7: März"])
async def test_an_idempotency_key_is_in_the_name_as_a_hash(
    server: BatchServer, config: dict[str, Any], key: str
) -> None:
    delivery = {"delivery_idempotency_key": key}
    async with started({**config, "job_name_prefix": "acme"}) as adapter:
        first = await adapter.submit(*submission("keyed-1", delivery=delivery))
        again = await adapter.submit(*submission("keyed-1", delivery=delivery))
        later = await adapter.submit(*submission("keyed-2", delivery=delivery))
    assert first.job_id == again.job_id
    assert first.job_id != later.job_id, "its run is over, or core would not submit another one"
    assert NAME.match(first.name)
    assert first.name.startswith("acme-k")
    assert first.name.endswith("-keyed-1")


async def test_another_process_with_the_same_key_is_refused(server: BatchServer, config: dict[str, Any]) -> None:
    delivery = {"delivery_idempotency_key": "shared-key"}
    async with started(config) as one, started(config) as other:
        await one.submit(*submission("mine-1", delivery=delivery))
        with pytest.raises(DeliveryError, match="delivery_idempotency_key"):
            await other.submit(*submission("theirs-1", delivery=delivery))
    assert [job["jobName"].rpartition("-k")[2][21:] for job in server.jobs("RUNNABLE")] == ["mine-1"]


@pytest.mark.parametrize("length", [1, 63])
async def test_names_are_legal_however_long_the_run_id(
    server: BatchServer, config: dict[str, Any], length: int
) -> None:
    delivery = {"delivery_idempotency_key": "K" * 300}
    async with started({**config, "job_name_prefix": "p" * 40}) as adapter:
        handle = await adapter.submit(*submission("r" * length, delivery=delivery))
    assert server.job(handle.job_id)["jobName"] == handle.name


async def test_overrides_that_aws_would_let_fail_later_are_refused(server: BatchServer, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        limit = adapter.max_payload_bytes
        assert limit is not None
        fits, too_long = await adapter.submit_many(
            [submission("fits-1", args_pickle="x" * (limit - 200)), submission("long-1", args_pickle="x" * 8200)]
        )
    assert isinstance(too_long, PayloadTooLargeError)
    assert isinstance(fits, Submitted)
    assert "payload_bucket" in str(too_long)
    assert server.job(fits.job_id)["status"] == "RUNNABLE"
    assert named(server, "wove-long-1") == []


# --- each job once ---


async def test_a_job_whose_answer_was_lost_is_found_and_not_created_again(
    server: BatchServer, config: dict[str, Any]
) -> None:
    server.expect("lose-answer")
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("lost-answer-1"))
    assert [job["jobId"] for job in named(server, "wove-lost-answer-1")] == [handle.job_id]


async def test_a_job_whose_request_was_lost_is_created(server: BatchServer, config: dict[str, Any]) -> None:
    server.expect("lose-request")
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("lost-request-1"))
    assert [job["jobId"] for job in named(server, "wove-lost-request-1")] == [handle.job_id]


async def test_submissions_that_are_too_many_wait(server: BatchServer, config: dict[str, Any]) -> None:
    for _ in range(3):
        server.expect("throttle")
    async with started(config) as adapter:
        handles = await handles_of(adapter, *(submission(f"throttled-{number}") for number in range(4)))
    assert len({handle.job_id for handle in handles}) == 4


async def test_a_job_that_may_have_been_created_is_ended_later(server: BatchServer, config: dict[str, Any]) -> None:
    for fault in ("lose-answer", "lose-list", "lose-list", "lose-list"):
        server.expect(fault)
    async with started(config) as adapter:
        with pytest.raises(ConnectionError, match="cannot be found out"):
            await adapter.submit(*submission("doubtful-1"))
        assert [job["status"] for job in named(server, "wove-doubtful-1")] == ["RUNNABLE"]
    assert [job["statusReason"] for job in named(server, "wove-doubtful-1")] == [ENDED]


async def test_a_cancelled_job_never_starts(server: BatchServer, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("cancelled-1"))
        await adapter.cancel("cancelled-1", handle, {})
        await adapter.cancel("cancelled-1", handle, {})
    job = server.job(handle.job_id)
    assert job["statusReason"] == ENDED
    assert job["attempts"] == []


async def test_a_cancel_during_an_outage_is_made_up_for(server: BatchServer, config: dict[str, Any]) -> None:
    with Relay(server.port) as relay:
        async with started({**config, "client_options": server.client_options(relay.port)}) as adapter:
            handle = await adapter.submit(*submission("outage-1"))
            relay.shut()
            await adapter.cancel("outage-1", handle, {})
            relay.open()
    assert server.job(handle.job_id)["statusReason"] == ENDED


# --- at the start ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"job_queue": "nowhere"}, "AWS Batch has no queue 'nowhere' in this account and region"),
        ({"job_definition": "nothing"}, "AWS Batch has no active 'nothing' in this account and region"),
        ({"client_options": {"profile_name": "nobody"}}, r"client_options: The config profile \(nobody\)"),
        ({"retry_strategy": {"evaluateOnExit": [{"action": 5}]}}, "boto3 does not take .*evaluateOnExit"),
    ],
)
async def test_what_leads_nowhere_is_an_error_at_start(
    config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with started({**config, **change}):
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"client_options: no region is set. Give one, for example 'region_name': 'eu-central-1'"),
        ({"region_name": "eu-central-1"}, r"Unable to locate credentials\. Set up credentials"),
    ],
)
async def test_what_boto3_lacks_is_named(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match=message):
        async with started({**config, "client_options": options}):
            pass


async def test_a_bucket_that_is_not_there_is_named_with_its_key(server: BatchServer, config: dict[str, Any]) -> None:
    async with started({**config, "payload_bucket": "nowhere"}) as adapter:
        with pytest.raises(DeliveryError, match="Correct 'payload_bucket', or make the bucket"):
            await adapter.submit(*submission("bucket-1"))


async def test_an_endpoint_that_is_not_there_is_named(config: dict[str, Any]) -> None:
    port = free_port()
    options = {**config["client_options"], "endpoint_url": f"http://127.0.0.1:{port}"}
    before = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"AWS at http://127\.0\.0\.1:{port} cannot be reached"):
        async with started({**config, "client_options": options}):
            pass
    assert time.monotonic() - before < 10.0


async def test_the_projects_own_client_is_used_and_left_open(server: BatchServer, config: dict[str, Any]) -> None:
    del config["client_options"]
    async with started({**config, "client": server.batch}) as adapter:
        handle = await adapter.submit(*submission("own-1"))
    assert server.batch.describe_jobs(jobs=[handle.job_id])["jobs"]


async def test_beside_a_client_the_options_are_those_of_s3(server: BatchServer, config: dict[str, Any]) -> None:
    config |= {"client": server.batch, "client_options": CREDENTIALS, "payload_bucket": BUCKET}
    async with started(config) as adapter:
        await adapter.submit(*submission("both-1"))
        assert server.objects() == ["wove-both-1.json"]


def deny(client: Any, *operations: str) -> None:
    """Let a client's requests be answered as AWS does where the policy lacks something."""
    error = {"Code": "AccessDeniedException", "Message": "User: me is not authorized to perform this"}
    parsed = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 403}}
    for operation in operations:
        client.meta.events.register(
            f"before-call.batch.{operation}", lambda **_: (SimpleNamespace(status_code=403), parsed)
        )


async def test_credentials_that_may_only_submit_are_enough(server: BatchServer, config: dict[str, Any]) -> None:
    with closing(server.client("batch")) as client:
        deny(client, "DescribeJobQueues", "DescribeJobDefinitions")
        async with started({**config, "client": client}) as adapter:
            handle = await adapter.submit(*submission("humble-1"))
    assert server.job(handle.job_id)["jobName"] == "wove-humble-1"


async def test_what_the_policy_lacks_is_named(server: BatchServer, config: dict[str, Any]) -> None:
    with closing(server.client("batch")) as client:
        deny(client, "SubmitJob")
        async with started({**config, "client": client}) as adapter:
            with pytest.raises(DeliveryError, match=r"does not allow SubmitJob: .* The README of wove-batch") as raised:
                await adapter.submit(*submission("denied-1"))
    assert "c2VjcmV0" not in str(raised.value)


async def test_readers_of_the_account_are_warned_of(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async with started(config):
        pass
    assert "batch:DescribeJobs" in caplog.text
    caplog.clear()
    async with started({**config, "payload_bucket": BUCKET}):
        pass
    async with started({**config, "callback_security": "env:SECRET"}):
        pass
    assert caplog.text == ""


async def test_tags_and_shares_are_asked_for(server: BatchServer, config: dict[str, Any]) -> None:
    config |= {"tags": {"team": "reports"}, "share_identifier": "reports", "retry_strategy": 3, "memory": 1024}
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("tagged-1"))
    job = server.job(handle.job_id)
    assert (job["tags"], job["shareIdentifier"]) == ({"team": "reports"}, "reports")
    assert job["retryStrategy"] == {"attempts": 3}
    assert {"type": "MEMORY", "value": "1024"} in job["container"]["resourceRequirements"]
