"""What the adapter leaves alone at Dask, what it shares, and which clients it takes."""

import asyncio
import json
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dask_backend import DaskDeployment, Scheduler, running_scheduler
from distributed import Client, get_client

import wove
from tests.support.waiting import wait_until
from wove import BackendAdapterEnvironmentExecutor, weave
from wove.errors import ConfigurationError, DeliveryError, DeliveryTimeoutError
from wove.testing import tasks
from wove.testing.servers import free_port
from wove.testing.stage import Stage
from wove_dask import DaskAdapter

# A machine that is busy takes its time to start a worker.
SECONDS = 80.0


@pytest.fixture(scope="module")
def deployment(scheduler: Scheduler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskDeployment]:
    options = (("--name", "first", "--resources", "GPU=1"), ("--name", "second"))
    deployment = DaskDeployment(scheduler, tmp_path_factory.mktemp("adapter"), options=options)
    yield deployment
    deployment.close()


@pytest.fixture
def stage(deployment: DaskDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def configure(**environments: dict[str, Any]) -> None:
    named = {name: {"executor": "dask", "executor_config": config} for name, config in environments.items()}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, **named})


def call(environment: str, left: int, right: int) -> int:
    with weave(left=left, right=right) as w:
        w.do(environment=environment)(tasks.add)
    value: int = w.result.add
    return value


def test_all_tasks_of_a_name_are_one_group_on_the_dashboard(deployment: DaskDeployment, stage: Stage) -> None:
    before = deployment.scheduler.prefixes()
    stage.begin_map(tasks.double, range(20)).result(SECONDS)
    stage.call(tasks.add, left=1, right=2)
    assert deployment.scheduler.prefixes() - before == {"wove_add", "wove_double"}


def test_environments_of_one_scheduler_share_a_client_that_is_nobody_s_default(
    deployment: DaskDeployment, stage: Stage
) -> None:
    before = deployment.scheduler.clients()
    address = deployment.scheduler.address()
    configure(high={"address": address, "submit_options": {"priority": 5}}, low={"address": address})
    assert (call("high", 1, 2), call("low", 3, 4)) == (3, 7)
    assert deployment.scheduler.clients() == before + 1
    with pytest.raises(ValueError, match="No global client found"):
        get_client()
    wove.shutdown()
    wait_until(lambda: deployment.scheduler.clients() == before, what="the client has gone")


def test_tasks_go_where_options_send_them(deployment: DaskDeployment, stage: Stage) -> None:
    stage.board.release("placed")
    pids = set()
    for options in ({"resources": {"GPU": 1}}, {"workers": "first"}, {"workers": ["first"], "annotations": {"a": 1}}):
        stage.configure(submit_options=options)
        pids.add(stage.call(tasks.attend, board=stage.board.address, label="placed"))
    stage.configure(submit_options={"workers": "second"})
    assert stage.call(tasks.attend, board=stage.board.address, label="placed") not in pids
    assert len(pids) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [({"resources": {"TPU": 1}}, "asks for TPU 1"), ({"workers": ["third"]}, "There are: first, second")],
)
def test_a_task_that_no_worker_can_take_is_reported_at_once_and_in_its_timeout(
    stage: Stage, caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: str
) -> None:
    stage.configure(submit_options=options)
    with caplog.at_level(logging.WARNING, "wove"):
        running = stage.begin(tasks.add, {"delivery_timeout": 8.0}, left=1, right=2)
        wait_until(lambda: said in caplog.text, what="the user is told")
        assert not running.ended
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryTimeoutError)
    assert said in str(error)


def test_the_end_of_a_task_that_never_began_is_confirmed_at_once(stage: Stage) -> None:
    stage.configure(submit_options={"workers": ["third"]})
    options = {"delivery_timeout": 1.0, "delivery_cancel_mode": "require_ack"}
    error = stage.begin(tasks.add, options, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryTimeoutError)
    assert "may still go on" not in "".join(traceback.format_exception(error))


def test_an_argument_of_a_whole_map_stays_with_the_weave_and_no_message_of_dask_s_holds_it(stage: Stage) -> None:
    payloads: list[dict[str, Any]] = []

    class NotingAdapter(DaskAdapter):
        async def submit_many(self, submissions: Any) -> Any:
            payloads.extend(payload for payload, _ in submissions)
            return await super().submit_many(submissions)

    def measured(item: int, blob: bytes) -> int:
        return item + len(blob)

    stage.configure(BackendAdapterEnvironmentExecutor("dask", adapter_class=NotingAdapter))
    values = stage.begin_map(measured, range(8), blob=tasks.make_blob(20_000_000)).result(SECONDS)
    assert values == [20_000_000 + item for item in range(8)]
    assert len(payloads) == 8
    assert max(len(json.dumps(payload)) for payload in payloads) < 64 * 1024
    assert len({json.dumps(payload["apart"]) for payload in payloads}) == 1


def test_a_detached_task_outlives_its_weave(stage: Stage) -> None:
    options = {"delivery_orphan_policy": "detach"}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="detached")
    (visit,) = stage.board.wait_for("detached", seconds=SECONDS)
    running.abandon()
    assert running.wait(SECONDS)
    wove.shutdown()
    stage.board.release("detached")
    assert stage.board.wait_for_end(visit, seconds=SECONDS) == "released"


def test_a_key_of_a_running_task_of_another_weave_is_refused(deployment: DaskDeployment, stage: Stage) -> None:
    address = deployment.scheduler.address()
    configure(conformance={"address": address}, other={"address": address, "submit_options": {"priority": 1}})
    options = {"delivery_idempotency_key": "monthly"}
    first = stage.begin(tasks.wait_at, options, board=stage.board.address, label="monthly")
    stage.wait_until_known(tasks.wait_at, "monthly")
    second = stage.begin(tasks.wait_at, {**options, "environment": "other"}, board=stage.board.address, label="monthly")
    stage.journal.wait_for_submission("wait_at", count=2, seconds=SECONDS)
    stage.board.release("monthly")
    assert first.result(SECONDS) == "released"
    error = second.failure(SECONDS)
    assert isinstance(error, DeliveryError)
    assert "delivery_idempotency_key belongs to a task of another weave" in str(error)
    assert len(stage.board.visits("monthly")) == 1


# --- the project's own clients ---


def test_a_synchronous_client_is_used_and_left_open(deployment: DaskDeployment, stage: Stage) -> None:
    before = deployment.scheduler.clients()
    with Client(deployment.scheduler.address(), set_as_default=False) as client:
        configure(mine={"client": client})
        assert call("mine", 1, 2) == 3
        assert deployment.scheduler.clients() == before + 1
        wove.shutdown()
        assert client.submit(tasks.add, 3, 4).result(SECONDS) == 7


async def test_an_asynchronous_client_is_used_on_its_own_loop(deployment: DaskDeployment, stage: Stage) -> None:
    async with Client(deployment.scheduler.address(), asynchronous=True, set_as_default=False) as client:
        configure(mine={"client": client})
        async with weave() as w:
            w.do(range(10), environment="mine")(tasks.double)
        assert w.result.double == [2 * item for item in range(10)]
        await asyncio.to_thread(wove.shutdown)
        assert await client.submit(tasks.add, 3, 4) == 7


async def test_a_weave_that_blocks_the_loop_of_its_client_is_told_so(deployment: DaskDeployment, stage: Stage) -> None:
    async with Client(deployment.scheduler.address(), asynchronous=True, set_as_default=False) as client:
        configure(blocked={"client": client})
        with pytest.raises(ConnectionError, match="has been blocked for 5 s"):
            call("blocked", 1, 2)
        await asyncio.to_thread(wove.shutdown)


def test_a_task_of_a_borrowed_client_stops_when_its_weave_is_cancelled(
    deployment: DaskDeployment, stage: Stage
) -> None:
    with Client(deployment.scheduler.address(), set_as_default=False) as client:
        configure(mine={"client": client})
        running = stage.begin(tasks.wait_at, {"environment": "mine"}, board=stage.board.address, label="mine")
        (visit,) = stage.board.wait_for("mine", seconds=SECONDS)
        running.abandon()
        assert running.wait(SECONDS)
        assert stage.board.wait_for_end(visit, seconds=5.0) == "stopped: TaskStopped"
        wove.shutdown()


def test_a_client_that_was_closed_is_named(deployment: DaskDeployment, stage: Stage) -> None:
    with Client(deployment.scheduler.address(), set_as_default=False) as client:
        pass
    configure(mine={"client": client})
    with pytest.raises(ConnectionError, match="the Dask client that was given as 'client' is closed, not running"):
        call("mine", 1, 2)


# --- schedulers that are not there, or not as they should be ---


def test_a_scheduler_that_is_not_there_is_named() -> None:
    port = free_port()
    configure(nowhere={"address": f"tcp://127.0.0.1:{port}", "client_options": {"timeout": 1}})
    with pytest.raises(ConnectionError, match=rf"The Dask scheduler at tcp://127\.0\.0\.1:{port} cannot be reached"):
        call("nowhere", 1, 2)
    wove.shutdown()


def test_what_takes_connections_but_is_no_scheduler_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        configure(silent={"address": f"tcp://127.0.0.1:{port}", "client_options": {"timeout": 1}})
        with pytest.raises(
            ConnectionError, match=rf":{port} cannot be reached: .*Start one there with 'dask scheduler'"
        ):
            call("silent", 1, 2)
        wove.shutdown()


def test_a_web_server_is_no_scheduler() -> None:
    # Its answer, read as Dask's protocol, announces a message that never ends.
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as dashboard:
        threading.Thread(target=dashboard.serve_forever, daemon=True).start()
        configure(web={"address": f"tcp://127.0.0.1:{dashboard.server_port}", "client_options": {"timeout": 1}})
        with pytest.raises(ConnectionError, match=rf":{dashboard.server_port} cannot be reached"):
            call("web", 1, 2)
        wove.shutdown()
        dashboard.shutdown()


def test_a_scheduler_file_that_does_not_appear_is_named(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    configure(file={"client_options": {"scheduler_file": str(file), "timeout": 1}})
    with pytest.raises(ConnectionError, match=rf"scheduler at {file} cannot be reached: nothing .* within 3 s"):
        call("file", 1, 2)
    wove.shutdown()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8786", "tcp://127.0.0.1"])
def test_what_is_no_address_is_named(address: str) -> None:
    configure(odd={"address": address})
    with pytest.raises(
        ConfigurationError, match=f"'{address}' is no address of a Dask scheduler: .*tcp://scheduler:8786"
    ):
        call("odd", 1, 2)
    wove.shutdown()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("empty", {}, "needs 'address', for example 'tcp://scheduler:8786'"),
        (
            "odd",
            {"address": "tcp://127.0.0.1:1", "client_options": {"tiemout": 1}},
            "Dask refuses the client's options",
        ),
    ],
)
def test_what_leads_to_no_scheduler_is_an_error_at_start(name: str, config: dict[str, Any], message: str) -> None:
    configure(**{name: config})
    with pytest.raises(ConfigurationError, match=message):
        call(name, 1, 2)
    wove.shutdown()


def test_a_scheduler_without_wove_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "hidden" / "wove_dask"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'wove_dask'\")")
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent))
    with running_scheduler(tmp_path) as bare:
        monkeypatch.undo()
        configure(bare={"address": bare.address()})
        with pytest.raises(DeliveryError, match="Is wove-dask installed for the scheduler and for each worker"):
            call("bare", 1, 2)
        wove.shutdown()
