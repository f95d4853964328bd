"""Reads a part of an object in S3 with the standard library alone: a job would spend most of a second on boto3.

The signature is AWS's version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from wove.errors import DeliveryError
from wove_batch.credentials import Credentials

_SECONDS = 30.0
_TIMES = 6
_FIRST_PAUSE = 0.2
_ADVICE = (
    " Does the role of the job allow s3:GetObject there? Of an object that has been removed, because nobody waits for "
    "its task any more, S3 says the same, unless the role may list the bucket."
)
_EMPTY = hashlib.sha256(b"").hexdigest()


class NotThere(DeliveryError):
    """The object is not there (any more)."""


def read_range(url: str, start: int, size: int, *, region: str, credentials: Credentials) -> bytes:
    """Return bytes of an object. A failure that may pass is tried again for some seconds.

    Args:
        url: the object's, percent-encoded, without a query.
        start, size: which bytes.
        region: the bucket's.
        credentials: of a role that may read it.

    Raises:
        NotThere: there is no such object.
        DeliveryError: S3 refuses it, or has not answered.
    """
    pause, why = _FIRST_PAUSE, ""
    for left in reversed(range(_TIMES)):
        try:
            status, body = _get(url, f"bytes={start}-{start + size - 1}", region, credentials)
            if status in (200, 206):
                # A server that takes no ranges sends it all.
                return body if status == 206 else body[start : start + size]
            why = f"S3 answers {status}: {_words(body)}.{_ADVICE if status == 403 else ''}"
        except (OSError, HTTPException) as error:
            status, why = 0, f"S3 cannot be reached: {error!r}"
        if status == 404:
            raise NotThere(why)
        if not left or (0 < status < 500 and status != 429):
            break
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause *= 2
    raise DeliveryError(f"The payload of this job cannot be read from {_place(url)}. {why}")


def _get(url: str, byte_range: str, region: str, credentials: Credentials) -> tuple[int, bytes]:
    parts = urlsplit(url)
    opened = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = opened(parts.netloc, timeout=_SECONDS)
    try:
        signed = signed_headers(
            url, {"range": byte_range}, region=region, credentials=credentials, now=datetime.now(UTC)
        )
        connection.request("GET", parts.path, headers=signed)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def signed_headers(
    url: str, headers: Mapping[str, str], *, region: str, credentials: Credentials, now: datetime
) -> dict[str, str]:
    """Return the headers of a GET request for an object, with its signature among them.

    Args:
        url: the object's, without a query.
        headers: lower-case names; ``host`` is added by the HTTP client, and signed too.
        region: the bucket's.
        credentials: whose signature.
        now: the time, in UTC.
    """
    parts = urlsplit(url)
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if credentials.token:
        sent["x-amz-security-token"] = credentials.token
    lines = sorted({**sent, "host": parts.netloc}.items())
    names = ";".join(name for name, _ in lines)
    canonical = "\n".join(("GET", parts.path, "", *(f"{name}:{value}" for name, value in lines), "", names, _EMPTY))
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (moment[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    about = f"Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "authorization": f"AWS4-HMAC-SHA256 {about}"}


def _words(body: bytes) -> str:
    """Return code and message out of S3's XML."""
    text = body.decode(errors="replace")
    parts = [text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] for tag in ("Code", "Message")]
    return ": ".join(part for part in parts if part) or "no reason"


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
