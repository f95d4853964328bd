"""The ``executor_config`` of the environment, checked. Nothing here imports boto3."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wove.backend_worker import PAYLOAD_VARIABLE
from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    accept_anything,
    check_flag,
    check_mapping,
    check_options,
    check_seconds,
    check_settings,
    check_text,
    is_number,
)
from wove_batch.reference import REFERENCE_VARIABLE

DEFAULT_PREFIX = "wove"
COMMAND = ("python", "-m", "wove.backend_worker")
COMMAND_WITH_BUCKET = ("python", "-m", "wove_batch.worker")

# https://docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html
_LEAST_TIMEOUT = 60
_MOST_ATTEMPTS = 10
_MOST_TAGS = 50
# A job's name takes 128 characters; the id of the run and the hash of its idempotency key need 86 of them.
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_SHARE = re.compile(r"[A-Za-z0-9]{1,255}\*?")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?:s3://)?(?P<name>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<folder>[A-Za-z0-9/._=-]*))?")
_RESERVED_VARIABLES = (PAYLOAD_VARIABLE, REFERENCE_VARIABLE)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where payloads are put in S3: a bucket, and what the keys begin with (empty, or with ``/`` at its end)."""

    name: str
    folder: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        job_queue, job_definition: names or ARNs.
        client: the project's own boto3 client for Batch; None: one is made with `client_options`.
        client_options: for ``boto3.client``, and ``profile_name``; those of S3 and CloudWatch Logs in any case.
        overrides: what every job's ``containerOverrides`` have, apart from the payload. A job whose definition's own
            command is kept has no ``command`` there.
        prefix: what the names of jobs begin with.
        timeout: ``attemptDurationSeconds``, or None.
        retry_strategy: ``retryStrategy``.
        tags: ``tags``.
        share_identifier: ``shareIdentifier``, or None.
        bucket: where payloads are put; None: they travel in the overrides.
        array_jobs: whether the items of a map may become one array job; needs a bucket.
        runnable_timeout: seconds that a job may wait in RUNNABLE; None for any time.
    """

    job_queue: str
    job_definition: str
    client: Any = field(default=None, repr=False)
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    overrides: Mapping[str, Any] = field(default_factory=dict, repr=False)
    prefix: str = DEFAULT_PREFIX
    timeout: int | None = None
    retry_strategy: Mapping[str, Any] = field(default_factory=lambda: {"attempts": 1})
    tags: Mapping[str, str] = field(default_factory=dict)
    share_identifier: str | None = None
    bucket: Bucket | None = None
    array_jobs: bool = True
    runnable_timeout: float | None = None


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(what)
        return value

    return check


def _client(value: object) -> object:
    if not (hasattr(value, "submit_job") and hasattr(value, "describe_jobs")):
        raise ValueError("a boto3 client for Batch")
    return value


def _vcpus(value: object) -> str:
    if not is_number(value) or value <= 0:
        raise ValueError("a positive number")
    return f"{value:g}"


def _whole(least: int, what: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(what)
        return str(value)

    return check


def _timeout(value: object) -> int:
    seconds = math.ceil(check_seconds(value))
    if seconds < _LEAST_TIMEOUT:
        raise ValueError(f"a number of seconds of at least {_LEAST_TIMEOUT}")
    return seconds


def _retry_strategy(value: object) -> dict[str, Any]:
    strategy = {"attempts": value} if isinstance(value, int) else value
    if not isinstance(strategy, Mapping) or not strategy.keys() <= {"attempts", "evaluateOnExit"}:
        raise ValueError("a number of attempts, or a dict with 'attempts' and 'evaluateOnExit'")
    attempts = strategy.get("attempts", 1)
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= _MOST_ATTEMPTS:
        raise ValueError(f"at least 1 and at most {_MOST_ATTEMPTS} attempts")
    return {"attempts": attempts, **strategy}


def _tags(value: object) -> dict[str, str]:
    tags = check_mapping(value)
    if len(tags) > _MOST_TAGS or not all(isinstance(each, str) for each in tags.values()):
        raise ValueError(f"a dict of at most {_MOST_TAGS} texts")
    return tags


def _bucket(value: object) -> Bucket:
    found = _BUCKET.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("the name of a bucket, and after a slash a prefix for the keys if there is to be one")
    folder = (found["folder"] or "").strip("/")
    return Bucket(found["name"], f"{folder}/" if folder else "")


def _command(value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError("a list of texts, or None to keep the command of the job definition")
    if not all(isinstance(part, str) for part in value):
        raise ValueError("a list of texts, or None to keep the command of the job definition")
    return list(value)


def _environment(value: object) -> dict[str, str]:
    what = "a dict of texts, or a list of {'name': ..., 'value': ...}"
    if isinstance(value, list | tuple):
        if not all(isinstance(pair, Mapping) and pair.keys() == {"name", "value"} for pair in value):
            raise ValueError(what)
        value = {pair["name"]: pair["value"] for pair in value}
    if not isinstance(value, Mapping):
        raise ValueError(what)
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(what)
        if name in _RESERVED_VARIABLES or name.startswith("AWS_BATCH"):
            raise ValueError(f"without {name}, which Wove or AWS Batch itself sets")
    return dict(value)


def _requirements(value: object) -> dict[str, str]:
    what = "a list of {'type': ..., 'value': ...}"
    if not isinstance(value, list | tuple):
        raise ValueError(what)
    if not all(isinstance(each, Mapping) and each.keys() == {"type", "value"} for each in value):
        raise ValueError(what)
    return {str(each["type"]): str(each["value"]) for each in value}


_MEMORY = _whole(4, "a whole number of MiB of at least 4")
# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "client": Setting(_client, "boto3.client('batch')"),
    "client_options": Setting(check_mapping, "{'region_name': 'eu-central-1'}"),
    "job_queue": Setting(check_text, "'reports'"),
    "job_definition": Setting(check_text, "'wove-worker:3'"),
    "container_overrides": Setting(check_mapping, "{'environment': {'STAGE': 'test'}}"),
    "job_name_prefix": Setting(
        _matching(_PREFIX, "at most 40 letters, digits, hyphens and underscores, the first a letter or digit"), "'acme'"
    ),
    "vcpus": Setting(_vcpus, "2"),
    "memory": Setting(_MEMORY, "2048"),
    "gpus": Setting(_whole(1, "a whole number of at least 1"), "1"),
    "timeout": Setting(_timeout, "3600"),
    "retry_strategy": Setting(_retry_strategy, "{'attempts': 2}"),
    "tags": Setting(_tags, "{'team': 'reports'}"),
    "share_identifier": Setting(_matching(_SHARE, "at most 255 letters and digits"), "'reports'"),
    "payload_bucket": Setting(_bucket, "'acme-wove/payloads'"),
    "array_jobs": Setting(check_flag, "False"),
    "runnable_timeout": Setting(check_seconds, "1800"),
}
# https://docs.aws.amazon.com/batch/latest/APIReference/API_ContainerOverrides.html
_OVERRIDES: Mapping[str, Setting] = {
    "command": Setting(_command, "['python3', '-m', 'wove.backend_worker']"),
    "environment": Setting(_environment, "{'STAGE': 'test'}"),
    "resourceRequirements": Setting(_requirements, "[{'type': 'VCPU', 'value': '2'}]"),
    "instanceType": Setting(check_text, "'m7i.large'"),
    "vcpus": Setting(_vcpus, "2"),
    "memory": Setting(_MEMORY, "2048"),
}
# https://docs.aws.amazon.com/boto3/latest/reference/core/session.html, Session.client
_CLIENT: Mapping[str, Setting] = {
    "region_name": Setting(check_text, "'eu-central-1'"),
    "profile_name": Setting(check_text, "'reports'"),
    "endpoint_url": Setting(check_text, "'http://localhost:4566'"),
    "aws_access_key_id": Setting(check_text, "'AKIA...'"),
    "aws_secret_access_key": Setting(check_text, "a text"),
    "aws_session_token": Setting(check_text, "a text"),
    "use_ssl": Setting(check_flag, "True"),
    "verify": Setting(accept_anything, "'/etc/ssl/acme.pem'"),
    "config": Setting(accept_anything, "botocore.config.Config(proxies={'https': 'http://proxy:3128'})"),
}
_SHORT = {"vcpus": "VCPU", "memory": "MEMORY", "gpus": "GPU"}


def read_settings(config: Mapping[str, Any], *, name: str = "aws_batch") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where, below={"client_options": _CLIENT, "container_overrides": _BELOW})
    for key in ("job_queue", "job_definition"):
        if key not in own:
            raise ConfigurationError(f"{where} needs {key!r}, for example {key!r}: {_OWN[key].example}.")
    if own.get("array_jobs") and "payload_bucket" not in own:
        raise ConfigurationError(
            f"{where}: array_jobs needs 'payload_bucket', for example 'payload_bucket': "
            f"{_OWN['payload_bucket'].example}: all jobs of an array have the same overrides."
        )
    return Settings(
        job_queue=own["job_queue"],
        job_definition=own["job_definition"],
        client=own.get("client"),
        client_options=check_options(own.get("client_options", {}), _CLIENT, where=where, parent="client_options"),
        overrides=_overrides(where, own),
        prefix=own.get("job_name_prefix", DEFAULT_PREFIX),
        timeout=own.get("timeout"),
        retry_strategy=own.get("retry_strategy", {"attempts": 1}),
        tags=own.get("tags", {}),
        share_identifier=own.get("share_identifier"),
        bucket=own.get("payload_bucket"),
        array_jobs=own.get("array_jobs", "payload_bucket" in own),
        runnable_timeout=own.get("runnable_timeout"),
    )


# Where both are possible, a key is not told to belong below another one.
_BELOW = {key: setting for key, setting in _OVERRIDES.items() if key not in _OWN}


def _overrides(where: str, own: Mapping[str, Any]) -> dict[str, Any]:
    given = own.get("container_overrides", {})
    checked = check_options(given, _OVERRIDES, where=where, parent="container_overrides")
    requirements = dict(checked.pop("resourceRequirements", {}))
    for place, values in (("container_overrides", checked), ("executor_config", own)):
        for key, kind in _SHORT.items():
            if key in values and requirements.setdefault(kind, values[key]) != values[key]:
                raise ConfigurationError(f"{where}: {key} is given twice. Keep the one of {place}.")
    overrides = {key: value for key, value in checked.items() if key not in _SHORT}
    if "command" not in given:
        overrides["command"] = list(COMMAND_WITH_BUCKET if "payload_bucket" in own else COMMAND)
    if requirements:
        overrides["resourceRequirements"] = [{"type": kind, "value": value} for kind, value in requirements.items()]
    return overrides
