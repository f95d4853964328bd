"""What the network executors accept as ``executor_config``, and what is not safe enough."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from wove import GrpcEnvironmentExecutor, HttpEnvironmentExecutor, WebSocketEnvironmentExecutor
from wove.environment.network import NetworkExecutor
from wove.environment.network_settings import NetworkSettings, is_local
from wove.errors import ConfigurationError

SIGNED = {"type": "signed", "secret": "a secret of more than sixteen bytes"}
BEARER = {"type": "bearer", "token": "a-token-of-enough-length"}


def http(**config: Any) -> NetworkSettings:
    return HttpEnvironmentExecutor().read_settings("workers", config)


def websocket(**config: Any) -> NetworkSettings:
    return WebSocketEnvironmentExecutor().read_settings("workers", config)


def grpc(**config: Any) -> NetworkSettings:
    return GrpcEnvironmentExecutor().read_settings("workers", config)


# --- where the service is ---


def test_a_url_is_taken_apart() -> None:
    settings = http(url="https://workers.internal/wove/tasks?queue=a b", security=SIGNED)
    assert (settings.host, settings.port, settings.tls) == ("workers.internal", 443, True)
    assert settings.target == "/wove/tasks?queue=a%20b"
    assert settings.address == "https://workers.internal:443/wove/tasks"


def test_a_url_without_a_path_means_the_root() -> None:
    assert http(url="http://127.0.0.1:8900").target == "/"


def test_a_name_of_other_letters_is_sent_in_ascii() -> None:
    assert http(url="https://bücher.example/", security=SIGNED).host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "'url' is missing. Example: 'url': 'https://"),
        ("", "'url' is missing"),
        (5, "url must be text"),
        ("workers.internal:8900", "url must begin with http:// or https://"),
        ("ws://localhost/", "url must begin with http:// or https://"),
        ("http:///wove", "names no host"),
        ("http://localhost:99999/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://me:hunter2@localhost/", "no user or password"),
    ],
)
def test_a_wrong_url_is_an_error(url: Any, message: str) -> None:
    config = {} if url is None else {"url": url}
    with pytest.raises(ConfigurationError, match=message) as caught:
        http(**config)
    assert str(caught.value).count("Environment 'workers'") == 1
    assert "hunter2" not in str(caught.value)


def test_a_websocket_wants_a_websocket_url() -> None:
    assert websocket(url="ws://localhost/").port == 80
    with pytest.raises(ConfigurationError, match=r"ws:// or wss://"):
        websocket(url="http://localhost/")


def test_what_may_be_a_secret_is_not_shown() -> None:
    shown = repr(http(url="http://localhost:1/tasks?key=hush", headers={"Authorization": "hush"}))
    assert "localhost" in shown
    assert "hush" not in shown


def test_a_grpc_target_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="'target' is missing"):
        grpc()


def test_a_grpc_target_may_be_the_url_that_the_service_prints() -> None:
    plain, secure = grpc(target="grpc://127.0.0.1:50051"), grpc(target="grpcs://localhost:50051/")
    assert (plain.host, plain.tls) == ("127.0.0.1:50051", False)
    assert (secure.host, secure.tls) == ("localhost:50051", True)


def test_a_grpc_target_with_the_scheme_of_another_transport_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"target must be host:port, like .*, not http://"):
        grpc(target="http://127.0.0.1:50051")


def test_the_grpc_method_can_be_chosen() -> None:
    assert grpc(target="localhost:1").target == "/wove.network_executor.WorkerService/Send"
    assert grpc(target="localhost:1", method="/acme.Tasks/Run").target == "/acme.Tasks/Run"
    with pytest.raises(ConfigurationError, match="method must be"):
        grpc(target="localhost:1", method="Run")


# --- what else can be set ---


@pytest.mark.parametrize(
    ("read", "config", "nearest"),
    [
        (http, {"ulr": "http://localhost/"}, "url"),
        (websocket, {"url": "ws://localhost/", "open_timout": 3}, "open_timeout"),
        (grpc, {"targt": "localhost:1"}, "target"),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(read: Any, config: dict[str, Any], nearest: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean '{nearest}'"):
        read(**config)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "30", True, [3]])
@pytest.mark.parametrize("name", ["timeout", "open_timeout"])
def test_a_timeout_is_a_positive_number(name: str, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be a positive, finite number of seconds"):
        websocket(url="ws://localhost/", **{name: timeout})


def test_silence_is_watched_unless_a_timeout_is_configured() -> None:
    assert http(url="http://localhost/").watch_silence
    assert not http(url="http://localhost/", timeout=None).watch_silence
    assert http(url="http://localhost/", timeout=3).timeout == 3


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", True, None])
def test_the_largest_response_is_a_positive_whole_number(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_response_bytes"):
        http(url="http://localhost/", max_response_bytes=size)


@pytest.mark.parametrize(
    "headers",
    [
        "X-A: b",
        5,
        [("a", "b", "c")],
        {"X A": "b"},
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": 5},
        {"X-A": "ä"},
        {5: "x"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_headers_that_cannot_be_sent_are_an_error(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="headers"):
        http(url="http://localhost/", headers=headers)


def test_headers_may_be_a_dict_or_pairs() -> None:
    assert http(url="http://localhost/", headers={"X-A": "b"}) == http(url="http://localhost/", headers=[("X-A", "b")])


def test_metadata_names_become_lower_case() -> None:
    assert grpc(target="localhost:1", metadata={"X-Tenant": "blue"}).headers == (("x-tenant", "blue"),)


def test_a_token_and_an_authorization_header_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        http(url="http://localhost/", headers={"authorization": "Basic x"}, security=BEARER)


def test_root_certificates_are_pem_or_a_file(tmp_path: Path) -> None:
    pem = trustme.CA().cert_pem.bytes()
    (tmp_path / "ca.pem").write_bytes(pem)
    for given in (pem, pem.decode(), str(tmp_path / "ca.pem"), tmp_path / "ca.pem"):
        settings = http(url="https://localhost/", root_certificates=given)
        assert settings.root_certificates == pem
        context = settings.tls_context()
        assert context is not None
        assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("given", ["/no/such/file.pem", b"junk", "-----BEGIN CERTIFICATE-----\njunk", 5])
def test_root_certificates_that_cannot_be_used_are_an_error(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="root_certificates"):
        http(url="https://localhost/", root_certificates=given)


@pytest.mark.parametrize("security", ["plain text", {"type": "sined"}, {"type": "signed", "secret": "short"}, 5])
def test_a_wrong_security_setting_names_the_environment(security: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'workers': .*security"):
        http(url="http://localhost/", security=security)


# --- what is safe ---


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.10", "::1", "[::1]"])
def test_names_and_addresses_of_this_machine_are_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["", "localhost.example", "notlocalhost", "0.0.0.0", "10.0.0.1", "::", "128.0.0.1"])
def test_anything_else_is_not_local(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1", "unix:/run/x.sock"])
def test_a_grpc_target_on_this_machine_needs_no_protection(target: str) -> None:
    assert not grpc(target=target).tls


REMOTE = [
    (http, {"url": "http://workers.internal/"}, {"url": "https://workers.internal/"}),
    (websocket, {"url": "ws://workers.internal/"}, {"url": "wss://workers.internal/"}),
    (grpc, {"target": "dns:///workers.internal:50051", "secure": False}, {"target": "workers.internal:50051"}),
]


@pytest.mark.parametrize(("read", "plain", "protected"), REMOTE)
def test_another_machine_needs_tls_and_security(read: Any, plain: dict[str, Any], protected: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not on this machine and needs TLS"):
        read(**plain, security=SIGNED)
    with pytest.raises(ConfigurationError, match="not on this machine and needs TLS"):
        read(**plain, security=BEARER)
    with pytest.raises(ConfigurationError, match="needs a 'security' setting"):
        read(**protected)
    with pytest.raises(ConfigurationError, match="needs a 'security' setting"):
        read(**protected, security="none")
    assert read(**protected, security=SIGNED).tls
    assert not read(**plain, insecure=True).tls


def test_insecure_is_true_or_false() -> None:
    with pytest.raises(ConfigurationError, match="insecure must be True or False"):
        http(url="http://workers.internal/", insecure="yes")


def test_insecure_does_not_turn_off_the_verification_of_certificates() -> None:
    context = http(url="https://workers.internal/", insecure=True).tls_context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_grpc_root_certificates_mean_tls() -> None:
    assert grpc(target="localhost:1", root_certificates=trustme.CA().cert_pem.bytes()).tls


def test_settings_show_no_secret() -> None:
    settings = http(url="https://workers.internal/?token=hunter2", security=SIGNED)
    assert SIGNED["secret"] not in repr(settings)
    assert "hunter2" not in settings.address


@pytest.mark.parametrize(
    ("executor", "package", "install"),
    [
        (HttpEnvironmentExecutor(), "httptools", r'pip install "wove\[dispatch\]"'),
        (WebSocketEnvironmentExecutor(), "websockets.asyncio.client", r'pip install "wove\[websocket\]"'),
        (GrpcEnvironmentExecutor(), "grpc", r'pip install "wove\[grpc\]"'),
    ],
)
async def test_a_missing_package_is_named_with_its_command(
    executor: NetworkExecutor, package: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    from wove.errors import MissingDispatchFeatureError

    config = {"url": "http://localhost/", "target": "localhost:1"}
    with pytest.raises(MissingDispatchFeatureError, match=install):
        await executor.start(environment_name="workers", environment_config=config, run_config={})
