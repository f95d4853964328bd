"""How a job reads its payload: signed requests, credentials, digests. Real S3 verifies signatures, so botocore must
agree with ours."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from batch_backend import BatchServer
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from tests.beds.batch_server import BUCKET, REGION
from wove.errors import ConfigurationError, DeliveryError, SignatureError
from wove_batch import credentials as where_credentials_are
from wove_batch.credentials import Credentials, find_credentials
from wove_batch.s3 import NotThere, read_range, signed_headers
from wove_batch.worker import fetch_payload

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize("token", [None, "session/token+=="])
@pytest.mark.parametrize(
    "url", ["https://acme.s3.eu-central-1.amazonaws.com/wove/run-1.json", "http://127.0.0.1:5000/acme/a%20b.json"]
)
def test_the_signature_is_the_one_that_botocore_makes(url: str, token: str | None) -> None:
    request = AWSRequest("GET", url, headers={"range": "bytes=0-9"})
    S3SigV4Auth(BotocoreCredentials("id", "secret", token), "s3", "eu-central-1").add_auth(request)
    now = datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = signed_headers(
        url, {"range": "bytes=0-9"}, region="eu-central-1", credentials=Credentials("id", "secret", token), now=now
    )
    assert ours["authorization"] == request.headers["Authorization"]


# --- credentials ---


@contextmanager
def serving(answers: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """Answer GET requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers(self)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()


@contextmanager
def answering(status: int, body: bytes, *, then: bytes | None = None) -> Iterator[str]:
    """Answer the first request with a status and a body, and later ones with 200 and another body if there is one."""
    answers = [(status, body)] if then is None else [(200, then), (status, body)]
    with serving(lambda _: answers.pop() if len(answers) > 1 else answers[0]) as url:
        yield url


def test_variables_come_first() -> None:
    assert find_credentials({**KEYS, "AWS_SESSION_TOKEN": "t"}) == Credentials("id", "secret", "t")


def test_the_role_of_a_task_gives_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bearer 7\n")
    seen = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        seen.append((request.path, request.headers["Authorization"]))
        body = json.dumps({"AccessKeyId": "role", "SecretAccessKey": "hush", "Token": "t"}).encode()
        return (200, body) if request.path == "/v2/credentials/1" else (404, b"")

    with serving(answer) as url:
        monkeypatch.setattr(where_credentials_are, "CONTAINER_HOST", url)
        relative = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}
        assert find_credentials(relative) == Credentials("role", "hush", "t")
        full = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/v2/credentials/1"}
        file = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}
        assert find_credentials({**full, **file}) == Credentials("role", "hush", "t")
        with pytest.raises(ConfigurationError, match="answers 404"):
            find_credentials({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/other"})
    assert seen[:2] == [("/v2/credentials/1", None), ("/v2/credentials/1", "bearer 7")]


def test_elsewhere_boto3_knows_where_credentials_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = filed\naws_secret_access_key = hush\n")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert find_credentials({}).access_key == "filed"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="jobRoleArn"):
        find_credentials({})


# --- objects ---


def reference(server: BatchServer, key: str, body: bytes, **changes: object) -> dict[str, str]:
    server.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    url = f"http://127.0.0.1:{server.port}/{BUCKET}/{key}"
    about = {"url": url, "region": REGION, "size": len(body), "digest": hashlib.sha256(body).hexdigest(), **changes}
    return {"WOVE_BATCH_PAYLOAD": json.dumps(about), **KEYS}


@pytest.fixture
def key(server: BatchServer, request: pytest.FixtureRequest) -> Iterator[str]:
    key = f"test_s3/{request.node.name}"
    yield key
    server.s3.delete_object(Bucket=BUCKET, Key=key)


def test_a_job_reads_its_payload_and_forgets_where_it_was(server: BatchServer, key: str) -> None:
    environ = reference(server, key, b'{"run_id": "1"}')
    assert fetch_payload(environ) == '{"run_id": "1"}'
    assert environ == KEYS


def test_an_element_of_an_array_reads_its_own_payload(server: BatchServer, key: str) -> None:
    bodies = [b'{"run_id": "1"}', b'{"run_id": "zwei"}']
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    head = json.dumps([[0, len(bodies[0]), digests[0]], [len(bodies[0]), len(bodies[1]), digests[1]]]).encode()
    about = {"size": len(head), "digest": hashlib.sha256(head).hexdigest(), "array": True}
    environ = reference(server, key, head + b"".join(bodies), **about)
    for index, body in enumerate(bodies):
        assert fetch_payload({**environ, "AWS_BATCH_JOB_ARRAY_INDEX": str(index)}) == body.decode()


def test_what_somebody_has_changed_is_not_executed(server: BatchServer, key: str) -> None:
    environ = reference(server, key, b'{"run_id": "1"}')
    server.s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"run_id": "2"}')
    with pytest.raises(SignatureError, match="somebody has changed it"):
        fetch_payload(environ)


def test_a_payload_that_was_removed_says_so(server: BatchServer) -> None:
    url = f"http://127.0.0.1:{server.port}/{BUCKET}/nowhere"
    with pytest.raises(NotThere, match="S3 answers 404: NoSuchKey"):
        read_range(url, 0, 10, region=REGION, credentials=Credentials("id", "secret"))


def test_what_the_role_may_not_read_says_what_it_needs() -> None:
    denied = answering(403, b"<Error><Code>AccessDenied</Code><Message>No</Message></Error>")
    said = r"403: AccessDenied: No\. .* s3:GetObject"
    with denied as url, pytest.raises(DeliveryError, match=said) as raised:
        read_range(f"{url}/bucket/key", 0, 10, region=REGION, credentials=Credentials("id", "hush"))
    assert "hush" not in str(raised.value)


def test_a_failure_that_passes_is_tried_again() -> None:
    with answering(503, b"", then=b"0123456789") as url:
        body = read_range(f"{url}/bucket/key", 2, 3, region=REGION, credentials=Credentials("id", "hush"))
    assert body == b"234"


def run_worker(environ: dict[str, str]) -> tuple[int, str]:
    """Return the exit code of the job's program and what it complains of."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "wove_batch.worker"],
        env={"PATH": os.environ["PATH"], **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_the_exit_code_says_what_became_of_a_payload(server: BatchServer, key: str) -> None:
    environ = reference(server, key, b'{"run_id": "1"}')
    server.s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"run_id": "2"}')
    changed = run_worker(environ)
    server.s3.delete_object(Bucket=BUCKET, Key=key)
    removed = run_worker(environ)
    missing = run_worker(dict(KEYS))
    assert [changed[0], removed[0], missing[0]] == [76, 66, 64]
    assert "nobody waits for the task any more" in removed[1]


@pytest.mark.parametrize("text", ["", "{}", "[]", "no JSON", '{"url": "http://x"}'])
def test_a_job_that_is_not_told_where_its_payload_is_says_who_should(text: str) -> None:
    with pytest.raises(ValueError, match="'payload_bucket'"):
        fetch_payload({"WOVE_BATCH_PAYLOAD": text})
