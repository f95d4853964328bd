"""The ``executor_config`` of the environment, checked. Nothing here imports Temporal's SDK."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    accept_anything,
    check_mapping,
    check_options,
    check_seconds,
    check_settings,
    check_text,
)

DEFAULT_TARGET_HOST = "localhost:7233"
DEFAULT_NAMESPACE = "default"
DEFAULT_TASK_QUEUE = "wove"
DEFAULT_PREFIX = "wove-"
DEFAULT_HEARTBEAT = timedelta(seconds=10)
# Temporal demands a limit. Where a task has no delivery_timeout, its worker's heartbeats tell whether it is alive.
DEFAULT_START_TO_CLOSE = timedelta(days=7)
# Both the activity and the workflow that are shipped are called like this.
SHIPPED = "wove.run"

TIMEOUTS = ("schedule_to_close_timeout", "schedule_to_start_timeout", "start_to_close_timeout", "heartbeat_timeout")


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        client: the project's own, a function that makes one, or the import path of either; None: one is connected.
        target_host: ``host:port`` of the server.
        namespace: of the connection that is made here.
        connect_options: for ``Client.connect``, under its own names.
        task_queue: where workers poll.
        workflow: the name or the run method of a workflow that takes the payload; None: the adapter's own way.
        prefix: before each run id or idempotency key, to make the id of the activity or workflow.
        timeouts: of the activity, for those of `TIMEOUTS` that are given.
        retry_policy: of the activity: a number of attempts, a dict for ``RetryPolicy``, or one.
        priority: a key, a dict for ``Priority``, or one; None: the server's default.
        start_options: for ``Client.start_activity`` or ``Client.start_workflow``, under their own names.
    """

    client: Any = None
    target_host: str = DEFAULT_TARGET_HOST
    namespace: str = DEFAULT_NAMESPACE
    connect_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    task_queue: str = DEFAULT_TASK_QUEUE
    workflow: Any = None
    prefix: str = DEFAULT_PREFIX
    timeouts: Mapping[str, timedelta] = field(default_factory=dict)
    retry_policy: Any = 1
    priority: Any = None
    start_options: Mapping[str, Any] = field(default_factory=dict)


# --- checks ---


def _client(value: object) -> object:
    if not (hasattr(value, "start_workflow") or callable(value) or (isinstance(value, str) and ":" in value)):
        raise ValueError("a temporalio Client, a function that makes one, or the import path of either")
    return value


def _host(value: object) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdigit() or "://" in host:
        raise ValueError("the server's host and port")
    return f"{host}:{port}"


def _workflow(value: object) -> object:
    # Temporal's client takes no class.
    if isinstance(value, type) or not (callable(value) or (isinstance(value, str) and value.strip())):
        raise ValueError("the name of a workflow, or its run method")
    return value


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 100:
        raise ValueError("a text of at most 100 printable characters")
    return value


def _tls(value: object) -> object:
    if not isinstance(value, bool) and not hasattr(value, "server_root_ca_cert"):
        raise ValueError("True, False or a temporalio.service.TLSConfig")
    return value


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return timedelta(seconds=check_seconds(value))


def _attempts(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, Mapping):
        given = check_mapping(value)
        known = "initial_interval backoff_coefficient maximum_interval maximum_attempts non_retryable_error_types"
        if not given.keys() <= set(known.split()):
            raise ValueError(f"a dict with keys out of {known.replace(' ', ', ')}")
        return {key: _duration(each) if key.endswith("_interval") else each for key, each in given.items()}
    if not hasattr(value, "maximum_attempts"):
        raise ValueError("a temporalio.common.RetryPolicy, a dict of its fields, or a number of attempts of at least 1")
    return value


def _priority(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return {"priority_key": value}
    if isinstance(value, Mapping):
        given = check_mapping(value)
        if not given.keys() <= {"priority_key", "fairness_key", "fairness_weight"}:
            raise ValueError("a dict with keys out of priority_key, fairness_key, fairness_weight")
        return given
    if not hasattr(value, "priority_key"):
        raise ValueError("a temporalio.common.Priority, a dict of its fields, or a number of at least 1")
    return value


def _policy(value: object) -> str:
    name = getattr(value, "name", value)
    if name not in ("ALLOW_DUPLICATE", "ALLOW_DUPLICATE_FAILED_ONLY", "REJECT_DUPLICATE"):
        raise ValueError("ALLOW_DUPLICATE, ALLOW_DUPLICATE_FAILED_ONLY or REJECT_DUPLICATE")
    return str(name)


_CLIENT_EXAMPLE = "a temporalio.client.Client, or 'myproject.temporal:connect'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "client": Setting(_client, _CLIENT_EXAMPLE),
    "target_host": Setting(_host, repr(DEFAULT_TARGET_HOST)),
    "namespace": Setting(check_text, "'reports'"),
    "connect_options": Setting(check_mapping, "{'tls': True}"),
    "task_queue": Setting(check_text, "'reports'"),
    "workflow": Setting(_workflow, "'ReportWorkflow'"),
    "workflow_id_prefix": Setting(_prefix, "'reports-'"),
    "start_options": Setting(check_mapping, "{'start_delay': 10}"),
    "retry_policy": Setting(_attempts, "3"),
    "priority": Setting(_priority, "1"),
    **{name: Setting(_duration, "60") for name in TIMEOUTS},
}
# What Temporal's users know from Client.connect:
# https://python.temporal.io/temporalio.client.Client.html#connect
_CONNECTING: Mapping[str, Setting] = {
    "tls": Setting(_tls, "True"),
    "api_key": Setting(check_text, "os.environ['TEMPORAL_API_KEY']"),
    "data_converter": Setting(accept_anything, "a DataConverter"),
    "plugins": Setting(accept_anything, "[MyPlugin()]"),
    "interceptors": Setting(accept_anything, "[MyInterceptor()]"),
    "default_workflow_query_reject_condition": Setting(accept_anything, "QueryRejectCondition.NONE"),
    "retry_config": Setting(accept_anything, "RetryConfig(max_retries=3)"),
    "keep_alive_config": Setting(accept_anything, "KeepAliveConfig()"),
    "connect_timeout": Setting(_duration, "5"),
    "rpc_metadata": Setting(check_mapping, "{'x-tenant': 'acme'}"),
    "identity": Setting(check_text, "'web-1'"),
    "runtime": Setting(accept_anything, "a Runtime"),
    "http_connect_proxy_config": Setting(accept_anything, "HttpConnectProxyConfig('proxy:8080')"),
    "dns_load_balancing_config": Setting(accept_anything, "DnsLoadBalancingConfig()"),
    "grpc_compression": Setting(accept_anything, "GrpcCompression.NONE"),
    "payload_limits": Setting(accept_anything, "PayloadLimitsConfig()"),
    "header_codec_behavior": Setting(accept_anything, "HeaderCodecBehavior.CODEC"),
}
# From Client.start_activity and Client.start_workflow: https://python.temporal.io/temporalio.client.Client.html
_STARTING: Mapping[str, Setting] = {
    "id_reuse_policy": Setting(_policy, "'REJECT_DUPLICATE'"),
    "search_attributes": Setting(accept_anything, "TypedSearchAttributes([SearchAttributePair(tenant, 'acme')])"),
    "start_delay": Setting(_duration, "10"),
    "rpc_metadata": Setting(check_mapping, "{'x-tenant': 'acme'}"),
    "rpc_timeout": Setting(_duration, "5"),
}
STARTING_ACTIVITIES: Mapping[str, Setting] = {**_STARTING, "summary": Setting(check_text, "'monthly report'")}
STARTING_WORKFLOWS: Mapping[str, Setting] = {
    **_STARTING,
    "execution_timeout": Setting(_duration, "3600"),
    "run_timeout": Setting(_duration, "3600"),
    "task_timeout": Setting(_duration, "10"),
    "memo": Setting(check_mapping, "{'tenant': 'acme'}"),
    "static_summary": Setting(check_text, "'monthly report'"),
    "static_details": Setting(check_text, "'For the board.'"),
    "start_signal": Setting(check_text, "'go'"),
    "start_signal_args": Setting(accept_anything, "[1]"),
    "versioning_override": Setting(accept_anything, "PinnedVersioningOverride(version)"),
}
# Wove itself decides on these; a cron job would run again and again.
_WOVES = (
    "id arg args task_queue activity workflow result_type id_conflict_policy cron_schedule request_eager_start".split()
)
_NOT_CONNECTING = ("target_host", "namespace", "lazy")


def read_settings(config: Mapping[str, Any], *, name: str = "temporal") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    starting = STARTING_ACTIVITIES if config.get("workflow") is None else STARTING_WORKFLOWS
    below = {"start_options": starting, "connect_options": {**_CONNECTING}}
    own = check_settings(config, _OWN, where=where, below=below)
    _check_combination(where, own)
    connecting = check_options(
        own.get("connect_options", {}), _CONNECTING, where=where, parent="connect_options", reserved=_NOT_CONNECTING
    )
    return Settings(
        client=own.get("client"),
        target_host=own.get("target_host", DEFAULT_TARGET_HOST),
        namespace=own.get("namespace", DEFAULT_NAMESPACE),
        connect_options=connecting,
        task_queue=own.get("task_queue", DEFAULT_TASK_QUEUE),
        workflow=own.get("workflow"),
        prefix=own.get("workflow_id_prefix", DEFAULT_PREFIX),
        timeouts={key: own[key] for key in TIMEOUTS if key in own},
        retry_policy=own.get("retry_policy", 1),
        priority=own.get("priority"),
        start_options=_start_options(where, own.get("start_options", {}), starting),
    )


def _start_options(where: str, given: Mapping[str, Any], known: Mapping[str, Setting]) -> dict[str, Any]:
    for key in given:
        if key in ("retry_policy", "priority", *TIMEOUTS):
            raise ConfigurationError(f"{where}: start_options[{key!r}] is given as {key!r} beside 'start_options'.")
        if key in STARTING_WORKFLOWS and key not in known:
            raise ConfigurationError(
                f"{where}: start_options[{key!r}] is for environments with a 'workflow' of their own."
            )
    return check_options(given, known, where=where, parent="start_options", reserved=_WOVES)


def _check_combination(where: str, own: Mapping[str, Any]) -> None:
    if "client" in own:
        for key in ("target_host", "namespace", "connect_options"):
            if key in own:
                raise ConfigurationError(f"{where}: {key} is for environments without 'client': it has its own.")
    if own.get("workflow", SHIPPED) == SHIPPED:
        return
    for key in (*TIMEOUTS, "retry_policy"):
        if key in own:
            raise ConfigurationError(
                f"{where}: {key} is for environments without 'workflow': yours decides how its activities run."
            )
