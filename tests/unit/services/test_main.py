"""The command line of a worker service, as far as it refuses to start."""

import json
import socket

import pytest

from wove.services.__main__ import main

TOKEN = json.dumps({"type": "bearer", "token": "a-token-of-enough-length"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http", "--host", "0.0.0.0"], "give --security env:NAME_OF_A_VARIABLE"),
        (["grpc", "--host", "10.0.0.1"], "give --security env:NAME_OF_A_VARIABLE"),
        (["http", "--host", "0.0.0.0", "--security", TOKEN], "a bearer token can be read on its way"),
        (["http", "--tls-cert", "cert.pem"], "--tls-cert and --tls-key belong together"),
        (["http", "--security", "env:WOVE_UNSET"], "'WOVE_UNSET' is not set"),
        (["http", "--security", "{broken"], "must be a JSON object"),
        (["http", "--security", "hunter2-hunter2-hunter2"], "security must be"),
        (["http", "--workers", "0"], "workers must be a whole number of at least 1"),
        (["http", "--threads", "0"], "threads must be"),
        (["http", "--beat", "0"], "beat must be"),
        (["grpc", "--grace", "-1"], "grace must be"),
        (["http", "--path", "tasks"], "path must begin with '/'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "hunter2" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("transport", ["http", "websocket", "grpc"])
def test_a_port_that_is_taken_is_named(transport: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([transport, "--port", str(port), "--workers", "1"]) == 1
    assert f"cannot serve on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_certificate_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http", "--port", "0", "--tls-cert", "/no/cert.pem", "--tls-key", "/no/key.pem"]) == 2
    assert "/no/cert.pem cannot be read" in capsys.readouterr().err


def test_an_unknown_transport_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["smtp"])
    assert "invalid choice: 'smtp'" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_what_is_no_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["http", f"--port={port}"])
    assert f"argument --port: must be a whole number from 0 to 65535, not {port!r}" in capsys.readouterr().err
