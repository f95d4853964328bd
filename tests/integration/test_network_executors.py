"""Weaves through real worker services in real processes: TLS, signatures, broken connections, shutdown."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import wove
from tests.support.commands import process_id, wait_for
from tests.support.deployments import AnnouncedWorker
from tests.support.relay import Relay
from tests.support.services import Service
from wove import weave
from wove.errors import DeliveryError, DeliveryOrphanedError
from wove.runtime import runtime
from wove.testing import Fault, FaultProxy

ROOT = Path(__file__).parents[2]
TRANSPORTS = ["http", "websocket", "grpc"]
SECRET = "a secret of more than sixteen bytes"


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is configured before, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    runtime.reset()
    yield
    wove.shutdown()
    runtime.reset()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start services; they are killed in the end."""
    services: list[Service] = []

    def start(transport: str, *options: str, **how: Any) -> Service:
        service = Service(transport, *options, **how)
        services.append(service)
        service.start()
        return service

    yield start
    for service in services:
        service.worker.close()


def configure(executor: str, config: dict[str, Any], **options: Any) -> None:
    remote = {"executor": executor, "executor_config": config, **options}
    wove.config(default_environment="default", environments={"default": {"executor": "local"}, "remote": remote})


def call(function: Callable[..., Any], **arguments: Any) -> Any:
    with weave(**arguments) as w:
        w.do(environment="remote")(function)
    return w.result[function.__name__]


def double(number: int) -> int:
    return 2 * number


def in_background(work: Callable[[], Any]) -> "Outcome":
    return Outcome(work)


class Outcome:
    """What becomes of a weave in another thread."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def get(self, seconds: float = 30.0) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the weave hangs"
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error


def await_file(path: Path, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


# --- a service that is not there ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_command_in_the_error_starts_the_service_that_was_missing(transport: str) -> None:
    absent = Service(transport)
    absent.worker.close()
    configure(transport, absent.config())
    with pytest.raises(DeliveryError, match="cannot be reached") as caught:
        call(double, number=1)
    command = re.search("`python (-m wove.services .*)`", str(caught.value))
    assert command is not None, str(caught.value)
    worker = AnnouncedWorker(
        [sys.executable, *command[1].split()], announcement="Wove worker service on ", env={"PYTHONPATH": str(ROOT)}
    )
    try:
        worker.ensure()
        assert call(double, number=1) == 2
    finally:
        worker.close()


# --- TLS and signatures ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for a service with a certificate for localhost that the authority has signed."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / "cert.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    return ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]


def tls_config(service: Service, **more: Any) -> dict[str, Any]:
    if service.transport == "grpc":
        return {"target": f"localhost:{service.port}", "secure": True, **more}
    scheme = {"http": "https", "websocket": "wss"}[service.transport]
    return {"url": f"{scheme}://localhost:{service.port}/wove/tasks", **more}


def executor_for(transport: str) -> str:
    return "https" if transport == "http" else transport


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_signed_task_runs_over_tls(
    transport: str,
    serve: Callable[..., Service],
    authority: trustme.CA,
    tls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", SECRET)
    service = serve(transport, "--security", "env:WOVE_TEST_SECRET", *tls)
    config = tls_config(service, security="env:WOVE_TEST_SECRET", root_certificates=authority.cert_pem.bytes())
    configure(executor_for(transport), config)
    with weave() as w:
        w.do(range(20), environment="remote")(double)
    assert w.result.double == [2 * number for number in range(20)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_certificate_of_a_stranger_is_not_trusted(
    transport: str, serve: Callable[..., Service], tls: list[str]
) -> None:
    service = serve(transport, *tls)
    configure(executor_for(transport), tls_config(service, root_certificates=trustme.CA().cert_pem.bytes()))
    with pytest.raises(DeliveryError, match=r"(?i)certificate|cannot be reached"):
        call(double, number=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_without_the_secret_is_refused(
    transport: str, serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", SECRET)
    service = serve(transport, "--security", "env:WOVE_TEST_SECRET")
    for security in ("none", {"type": "signed", "secret": "another secret of this length"}):
        configure(transport, service.config(security=security))
        with pytest.raises(
            DeliveryError, match=r"Request refused: the (header|signature)|status 403 and no reason; 'security' must"
        ):
            call(double, number=1)
    configure(transport, service.config(security="env:WOVE_TEST_SECRET"))
    assert call(double, number=1) == 2


def test_a_bearer_token_opens_a_service(serve: Callable[..., Service]) -> None:
    service = serve("http", "--security", '{"type": "bearer", "token": "a-token-of-enough-length"}')
    configure("http", service.config(headers={"Authorization": "Bearer a-token-of-enough-length"}))
    assert call(double, number=1) == 2


def test_a_plain_connection_to_a_tls_port_is_an_error(serve: Callable[..., Service], tls: list[str]) -> None:
    configure("http", serve("http", *tls).config())
    with pytest.raises(DeliveryError, match=r"closed the connection|does not speak HTTP|the connection broke"):
        call(double, number=1)


# --- connections that break ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_run_survives_a_connection_that_breaks(transport: str, serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve(transport)
    with Relay(service.port) as relay:
        config = service.config()
        name = "target" if transport == "grpc" else "url"
        configure(transport, {name: config[name].replace(str(service.port), str(relay.port))})
        # The first task lets the client learn that the service keeps runs.
        assert call(double, number=1) == 2
        weaving = in_background(lambda: call(wait_for, path=str(tmp_path / "go")))
        await_file(tmp_path / "go.begun")
        relay.cut()
        (tmp_path / "go").touch()
        assert weaving.get() == "waited"
    assert not (tmp_path / "go.cancelled").exists()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_service_that_restarts_loses_its_runs_and_takes_new_ones(
    transport: str, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve(transport)
    configure(transport, service.config())
    assert call(double, number=1) == 2
    weaving = in_background(lambda: call(wait_for, path=str(tmp_path / "go")))
    await_file(tmp_path / "go.begun")
    service.worker.kill()
    service.start()
    with pytest.raises(DeliveryOrphanedError, match="does not know the run"):
        weaving.get()
    assert call(double, number=2) == 4


def test_latency_of_two_seconds_is_no_reason_to_give_up(serve: Callable[..., Service]) -> None:
    service = serve("http")
    with FaultProxy(("127.0.0.1", service.port)) as proxy:
        proxy.add(Fault("delay", seconds=2.0))
        configure("http", {"url": proxy.url("/wove/tasks")})
        assert call(double, number=1) == 2


def test_proxy_variables_are_ignored(serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for transport in TRANSPORTS:
        configure(transport, serve(transport).config())
        assert call(double, number=1) == 2


# --- how tasks run ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_tasks_run_in_all_worker_processes_and_never_in_the_service(
    transport: str, serve: Callable[..., Service]
) -> None:
    service = serve(transport, workers=2)
    configure(transport, service.config())
    with weave() as w:

        @w.do(range(40), environment="remote")
        def where(item: int) -> int:
            time.sleep(0.02)
            return os.getpid()

    assert set(w.result.where) == set(service.processes())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_64_tasks_of_100_ms_run_at_the_same_time(transport: str, serve: Callable[..., Service]) -> None:
    configure(transport, serve(transport).config())
    assert call(double, number=1) == 2
    started = time.monotonic()
    with weave() as w:

        @w.do(range(64), environment="remote")
        def rest(item: int) -> int:
            time.sleep(0.1)
            return item

    assert w.result.rest == list(range(64))
    assert time.monotonic() - started < 64 * 0.1 / 4


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_a_task_prints_and_reads_does_not_matter(transport: str, serve: Callable[..., Service]) -> None:
    configure(transport, serve(transport).config())

    def noisy() -> str:
        print("hello")
        os.write(1, b'{"type": "task_result", "run_id": "x", "result": 1}\n')
        return sys.stdin.read()

    assert call(noisy) == ""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_result_of_64_mib_comes_back(transport: str, serve: Callable[..., Service]) -> None:
    configure(transport, serve(transport).config())

    def large() -> bytes:
        return os.urandom(1024) * 65536

    assert len(call(large)) == 64 * 1024 * 1024


# --- shutdown ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sigterm_lets_running_tasks_finish(transport: str, serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve(transport)
    configure(transport, service.config())
    weaving = in_background(lambda: call(wait_for, path=str(tmp_path / "go")))
    await_file(tmp_path / "go.begun")
    processes = service.processes()
    os.kill(service.worker.pid, signal.SIGTERM)
    await_text(service, "takes no more tasks")
    (tmp_path / "go").touch()
    assert weaving.get() == "waited"
    await_end(service)
    for pid in processes:
        await_gone(pid)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_second_sigterm_reports_running_tasks_and_ends_the_service(
    transport: str, serve: Callable[..., Service], tmp_path: Path
) -> None:
    service = serve(transport)
    configure(transport, service.config())
    weaving = in_background(lambda: call(wait_for, path=str(tmp_path / "go")))
    await_file(tmp_path / "go.begun")
    os.kill(service.worker.pid, signal.SIGTERM)
    await_text(service, "takes no more tasks")
    os.kill(service.worker.pid, signal.SIGTERM)
    with pytest.raises(DeliveryOrphanedError, match="shut down"):
        weaving.get()
    await_end(service)


def test_an_idle_service_ends_at_once_and_with_success() -> None:
    command = [sys.executable, "-m", "wove.services", "http", "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        announcement = process.stdout.readline()
        assert announcement.startswith("Wove worker service on http://127.0.0.1:")
        assert ":0/" not in announcement
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_service_whose_workers_die_goes_on(serve: Callable[..., Service]) -> None:
    service = serve("http", workers=1)
    configure("http", service.config(), retries=1)
    before = call(process_id)
    os.kill(before, signal.SIGKILL)
    assert call(process_id) != before


def await_text(service: Service, text: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while text not in service.worker.output():
        assert time.monotonic() < deadline, service.worker.output()
        time.sleep(0.01)


def await_end(service: Service, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while service.worker.running:
        assert time.monotonic() < deadline, service.worker.output()
        time.sleep(0.01)
    assert "Traceback" not in service.worker.output()


def await_gone(pid: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is left"
        time.sleep(0.01)
