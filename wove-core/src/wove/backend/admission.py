"""Whether a worker executes a payload: its shape, its version, its signature, and the settings that it brings."""

import math
import os
from collections.abc import Mapping
from typing import Any, TypeGuard

from wove.backend.retries import DeliveryPolicy
from wove.backend.signing import derive_key, shared_secret, verify_payload
from wove.errors import ConfigurationError, DeliveryTimeoutError, SignatureError

RETRY_VARIABLE = "WOVE_CALLBACK_RETRY_SECONDS"
SECURITY_VARIABLE = "WOVE_CALLBACK_SECURITY"
_USUAL_POLICY = DeliveryPolicy()


def check_payload(payload: object) -> None:
    """Raise ValueError for a payload that lacks what every worker needs, or that a later version of Wove made."""
    if not isinstance(payload, Mapping):
        raise ValueError(f"A payload is a dict, not {type(payload).__name__}.")
    for name in ("callback_url", "run_id"):
        if not isinstance(payload.get(name), str) or not payload[name]:
            raise ValueError(f"A payload needs {name!r}: was it submitted unchanged?")
    if payload.get("version", 1) != 1:
        raise ValueError(
            f"The payload has version {payload['version']!r}, which this Wove does not know. "
            "Install the same version where weaves run and where their tasks run."
        )


def check_options(*, delivered_once: bool, returns: int) -> None:
    """Raise ValueError for options of ``run`` that do not go together."""
    if returns and not delivered_once:
        raise ValueError("returns is for jobs that are delivered once: set delivered_once, too, or leave it out.")


def event_key(payload: Mapping[str, Any]) -> str | None:
    """Return the key that signs the run's events, or None where they are not signed. Nothing may be unpickled before.

    With ``callback_security`` ``"env:VAR"`` the payload's own signature is checked first. Whoever can write to the
    broker could leave that field out; a worker whose environment sets `WOVE_CALLBACK_SECURITY` to the same value
    demands it.

    Raises:
        SignatureError: the payload is not signed by whoever holds the secret.
        ConfigurationError: the secret is not known here.
    """
    demanded = os.environ.get(SECURITY_VARIABLE)
    announced = payload.get("callback_security")
    if demanded or announced:
        if demanded and announced != demanded:
            raise SignatureError(
                f"The payload of run {payload['run_id']!r} is not executed: this worker demands "
                f"callback_security {demanded!r} ({SECURITY_VARIABLE}), the payload has {announced!r}."
            )
        secret = shared_secret(str(announced))
        verify_payload(payload, secret)
        return derive_key(secret, payload["run_id"])
    return payload.get("callback_key")


def delivery_policy(payload: Mapping[str, Any]) -> DeliveryPolicy:
    """Return the timeouts of a run; the limit of all attempts together comes from the payload
    (``callback_retry_seconds``), from `WOVE_CALLBACK_RETRY_SECONDS` or is ten minutes.

    Raises:
        ConfigurationError: it is no positive number.
    """
    limit = payload.get("callback_retry_seconds")
    given = os.environ.get(RETRY_VARIABLE)
    if limit is None and given:
        try:
            limit = float(given)
        except ValueError:
            limit = given
    if limit is None:
        return _USUAL_POLICY
    if not is_seconds(limit):
        raise ConfigurationError(f"{RETRY_VARIABLE} must be a number of seconds, not {limit!r}.")
    return DeliveryPolicy(limit=limit)


def orphan_policy(payload: Mapping[str, Any]) -> object:
    """Return what becomes of the run when it is given up, as far as the payload says it."""
    delivery = payload.get("delivery")
    return delivery.get("delivery_orphan_policy") if isinstance(delivery, Mapping) else None


def must_ask(payload: Mapping[str, Any]) -> bool:
    """Tell whether a worker has to ask the weave before it begins, whatever the backend shows about the job."""
    # Nobody takes such a job back when it is given up. And whoever can write to a broker can send a payload that is
    # signed once more.
    return orphan_policy(payload) == "fail" or bool(payload.get("callback_security"))


def is_seconds(value: object) -> TypeGuard[float]:
    """Tell whether a value is a positive, finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def expiry(payload: Mapping[str, Any], now: float) -> DeliveryTimeoutError | None:
    """Return the error of a run whose deadline had passed when it reached the worker; None where there is time left.

    Args:
        payload: the payload.
        now: unix seconds.
    """
    deadline = payload.get("deadline")
    if not is_seconds(deadline) or now <= deadline:
        return None
    return DeliveryTimeoutError(
        f"Task {payload.get('task_name')!r} reached a worker after its delivery_timeout; it was not executed."
    )
