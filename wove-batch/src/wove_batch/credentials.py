"""The AWS credentials of a job, from where its role puts them; with boto3 only where nothing simpler has any."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from wove.errors import ConfigurationError

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
CONTAINER_HOST = "http://169.254.170.2"
_SECONDS = 5.0

_NONE = (
    "This job has no AWS credentials, with which it could read its payload. Give its job definition a jobRoleArn whose "
    "policy allows s3:GetObject for the payload_bucket."
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def find_credentials(environ: Mapping[str, str]) -> Credentials:
    """Return the credentials of this job.

    Looked for in the variables ``AWS_ACCESS_KEY_ID`` and so on, at the container's own address, and then wherever boto3
    finds some.

    Raises:
        ConfigurationError: there are none.
        OSError: the container's own address does not answer.
    """
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        token = environ.get("AWS_SESSION_TOKEN") or None
        return Credentials(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], token)
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = f"{CONTAINER_HOST}{relative}" if relative else environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    return _of_container(url, environ) if url else _of_boto3()


def _of_container(url: str, environ: Mapping[str, str]) -> Credentials:
    file = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    authorization = Path(file).read_text().strip() if file else environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    parts = urlsplit(url)
    opened = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = opened(parts.netloc, timeout=_SECONDS)
    try:
        headers = {"Authorization": authorization} if authorization else {}
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ConfigurationError(f"The address for this job's AWS credentials answers {answer.status}. {_NONE}")
    found = json.loads(body)
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found.get("Token"))


def _of_boto3() -> Credentials:
    try:
        from botocore.session import Session
    except ImportError:
        raise ConfigurationError(_NONE) from None
    # The instance's own role, a web identity, files.
    found = Session().get_credentials()
    if found is None:
        raise ConfigurationError(_NONE)
    frozen = found.get_frozen_credentials()
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token)
