"""Calls to AWS, blocking and from any thread: clients, what their errors mean, and which are made again."""

import random
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
)
from botocore.validate import ParamValidator

from wove.errors import ConfigurationError, DeliveryError
from wove_batch.settings import Settings

# How many calls are made at a time, over as many connections. Submissions that AWS puts off must not keep others back.
SUBMITTING, ASKING = 10, 4
_CONNECT_SECONDS, _ANSWER_SECONDS = 3.0, 20.0
# SubmitJob is allowed 50 times per second and account: https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html
_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

_THROTTLED = {
    "TooManyRequestsException",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "RequestLimitExceeded",
    "SlowDown",
}
_DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"}
_NO_CREDENTIALS = {
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
}
_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
_MISCONFIGURED = (NoCredentialsError, NoRegionError, PartialCredentialsError, ProfileNotFound)
# botocore's complaints repeat the value, which may be a secret.
_VALUE = re.compile(r", value: .*?(?=, (?:type|valid)|$)", re.MULTILINE | re.DOTALL)


class AnswerLost(ConnectionError):
    """A request may have been carried out, or not: its answer did not come."""


class Throttled(DeliveryError):
    """AWS has refused a request for now, because there were too many."""


class Denied(DeliveryError):
    """AWS does not allow these credentials a request."""


class Missing(DeliveryError):
    """What a request names is not there."""


class Service:
    """The clients of one environment: Batch, and where it is needed S3 and CloudWatch Logs.

    `connect` comes first. boto3's clients may be used from many threads.

    Args:
        settings: which clients to make.
        where: how messages about the configuration begin.
    """

    def __init__(self, settings: Settings, *, where: str) -> None:
        self._settings = settings
        self._where = where
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        # A session makes one client at a time.
        self._making = threading.Lock()

    def connect(self) -> None:
        """Make the clients. Takes a while, and makes no connection.

        Raises:
            ConfigurationError: there is no region, no such profile, or boto3 does not take an option.
        """
        try:
            self._session = boto3.Session(**self._given("profile_name"))
            self._clients["batch"] = self._settings.client or self._made("batch")
            if self._settings.bucket is not None:
                self._clients["s3"] = self._made("s3")
        except (BotoCoreError, ValueError, TypeError) as error:
            said = _without_values(error)
            if isinstance(error, NoRegionError):
                said = (
                    "no region is set. Give one, for example 'region_name': 'eu-central-1', or set AWS_DEFAULT_REGION."
                )
            raise ConfigurationError(f"{self._where}: client_options: {said}") from None

    def close(self) -> None:
        """Close the connections, but not those of the project's own client."""
        for name, client in self._clients.items():
            if not (name == "batch" and self._settings.client is not None):
                client.close()

    @property
    def address(self) -> str:
        """Where AWS Batch is."""
        return _address(self._clients["batch"])

    def complaint_about(self, request: Mapping[str, Any]) -> str | None:
        """Return why boto3 would refuse a SubmitJob request, without its values, or None."""
        shape = self._clients["batch"].meta.service_model.operation_model("SubmitJob").input_shape
        report = ParamValidator().validate(dict(request), shape)
        return _VALUE.sub("", report.generate_report()) if report.has_errors() else None

    def call(self, operation: str, *, service: str = "batch", **parameters: Any) -> Any:
        """Make one request, and make it again while AWS says that there are too many.

        Args:
            operation: a client's method, e.g. ``submit_job``.
            service: ``batch``, ``s3`` or ``logs``.
            parameters: of the request.

        Raises:
            AnswerLost: the request may have been carried out.
            ConnectionError: AWS cannot be reached; the request has not been carried out.
            ConfigurationError: there are no credentials, or AWS does not know them.
            DeliveryError: AWS refuses it.
        """
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._call_once(operation, service, parameters)
            except Throttled:
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def insist(self, operation: str, *, service: str = "batch", times: int = 3, **parameters: Any) -> Any:
        """Make a request that may be carried out twice, again after a lost answer as well."""
        for _ in range(times - 1):
            try:
                return self.call(operation, service=service, **parameters)
            except AnswerLost:
                time.sleep(_FIRST_PAUSE)
        return self.call(operation, service=service, **parameters)

    def url_of(self, bucket: str, key: str) -> str:
        """Return the URL of an object in S3, in the form that its region and partition ask for."""
        signed = self._clients["s3"].generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        return str(signed).partition("?")[0]

    @property
    def region(self) -> str:
        """The region of the bucket's client."""
        return str(self._clients["s3"].meta.region_name)

    def _call_once(self, operation: str, service: str, parameters: Mapping[str, Any]) -> Any:
        client = self._client(service)
        try:
            return getattr(client, operation)(**parameters)
        except (BotoCoreError, ClientError) as error:
            raise _translated(error, operation, _address(client)) from None

    def _client(self, service: str) -> Any:
        with self._making:
            if service not in self._clients:
                self._clients[service] = self._made(service)
            return self._clients[service]

    def _made(self, service: str) -> Any:
        options = self._given(*(self._settings.client_options.keys() - {"profile_name", "config"}))
        if service != "batch" and _is_of_aws(options.get("endpoint_url")):
            # One of Batch alone. Elsewhere (LocalStack, moto) all services have the same.
            del options["endpoint_url"]
        if self._settings.client is not None:
            meta = self._settings.client.meta
            options.setdefault("region_name", meta.region_name)
            if not _is_of_aws(meta.endpoint_url):
                options.setdefault("endpoint_url", meta.endpoint_url)
        # botocore would send a job again whose answer was lost, without looking whether it is there.
        own = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_ANSWER_SECONDS,
            max_pool_connections=SUBMITTING + ASKING,
        )
        given = self._settings.client_options.get("config")
        return self._session.client(service, config=own if given is None else own.merge(given), **options)

    def _given(self, *names: str) -> dict[str, Any]:
        options = self._settings.client_options
        return {name: options[name] for name in names if name in options}


def _is_of_aws(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _address(client: Any) -> str:
    parts = urlsplit(client.meta.endpoint_url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _translated(error: Exception, operation: str, address: str) -> Exception:
    """Return the error that stands for one of boto3's; no message holds a payload or a credential."""
    name = "".join(part.title() for part in operation.split("_"))
    if isinstance(error, ClientError):
        return _refusal(error, name, address)
    if isinstance(error, _MISCONFIGURED):
        return ConfigurationError(
            f"{name}: {str(error).rstrip('.')}. Set up credentials and region as for the AWS CLI."
        )
    if isinstance(error, ParamValidationError):
        return DeliveryError(f"{name}: {_without_values(error)}")
    if isinstance(error, _NEVER_SENT):
        kind = type(error).__name__
        return ConnectionError(f"AWS at {address} cannot be reached ({kind}). Are region and endpoint_url right?")
    if isinstance(error, HTTPClientError):
        return AnswerLost(f"AWS at {address} gave no answer to {name} ({type(error).__name__}).")
    return DeliveryError(f"{name} failed: {_without_values(error)}")


def _refusal(error: ClientError, name: str, address: str) -> Exception:
    about = error.response.get("Error", {})
    code, message = str(about.get("Code", "")), str(about.get("Message", "")).rstrip(".")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    if code in _THROTTLED or status == 429:
        return Throttled(f"AWS takes no more {name} requests for now ({code}).")
    if code in _DENIED or status == 403:
        if code in _NO_CREDENTIALS:
            return ConfigurationError(f"AWS does not accept the credentials for {name} ({code}: {message}).")
        return Denied(f"AWS does not allow {name}: {message}. The README of wove-batch has the policy that is needed.")
    if status >= 500:
        return AnswerLost(f"AWS at {address} failed to answer {name} ({code}: {message}).")
    if status == 404 or code in ("NoSuchBucket", "NoSuchKey", "ResourceNotFoundException"):
        hint = " Correct 'payload_bucket', or make the bucket." if code == "NoSuchBucket" else ""
        return Missing(f"{name}: {code}: {message}.{hint}")
    return DeliveryError(f"AWS refuses {name}: {message} ({code}).")


def _without_values(error: Exception) -> str:
    return _VALUE.sub("", str(error))
