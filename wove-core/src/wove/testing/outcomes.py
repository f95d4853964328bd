"""What became of each scenario, one line of JSON each, for tables such as the one in the documentation.

Set the environment variable ``WOVE_CONFORMANCE_OUTCOMES`` to the name of a file: every scenario that is run appends a
line to it::

    {"suite": "TestCelery", "subject": "celery", "kit": "adapter", "scenario": "test_a_sync_task_returns_its_value",
     "title": "sync task", "outcome": "passed", "capability": null, "sentence": null, "seconds": 0.12}

``outcome`` is ``passed``, ``failed``, or ``missing``: then ``capability`` names what the subject lacks and ``sentence``
is its own word about it.
"""

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict, TypeVar

import pytest

from wove.errors import WoveError
from wove.integrations.base import CAPABILITIES
from wove.testing.deployment import HOOKS, Deployment

VARIABLE = "WOVE_CONFORMANCE_OUTCOMES"

KIT_CAPABILITIES: Mapping[str, str] = {
    **CAPABILITIES,
    "crosses_boundary": "callables, arguments, results and exceptions are serialized",
}

F = TypeVar("F", bound=Callable[..., None])


class Outcome(TypedDict):
    """One line of the file."""

    suite: str
    subject: str
    kit: str
    scenario: str
    title: str
    outcome: str
    capability: str | None
    sentence: str | None
    seconds: float


class Suite(Protocol):
    """What `scenario` needs to know of the class whose method it decorates."""

    kit: str
    subject: str
    capabilities: frozenset[str]
    limitations: Mapping[str, str]


class Missing(WoveError):
    """A scenario does not apply: the subject lacks a capability or the deployment a hook."""

    def __init__(self, capability: str, sentence: str) -> None:
        self.capability = capability
        self.sentence = sentence
        super().__init__(f"missing capability {capability!r}: {sentence}")


def scenario(title: str, *, needs: str = "", hooks: str = "") -> Callable[[F], F]:
    """Make a test a scenario of the kit: checked for what it needs, and recorded.

    Args:
        title: a few words, the same for every backend; a row of the table.
        needs: names of capabilities, separated by spaces.
        hooks: names of `Deployment` methods, separated by spaces.
    """
    capabilities, methods = needs.split(), hooks.split()
    if not KIT_CAPABILITIES.keys() >= set(capabilities) or not set(methods) <= HOOKS:
        raise ValueError(f"Scenario {title!r} needs something that nobody can declare: {needs} {hooks}")

    def decorate(test: F) -> F:
        @functools.wraps(test)
        def run(self: Suite, *args: Any, **kwargs: Any) -> None:
            started = time.monotonic()
            outcome, missing = "failed", None
            try:
                _check(self, kwargs.get("deployment"), capabilities, methods)
                test(self, *args, **kwargs)
                outcome = "passed"
            except Missing as lack:
                outcome, missing = "missing", lack
                pytest.skip(str(lack))
            finally:
                _record(self, test.__name__, title, outcome, missing, time.monotonic() - started)

        return run  # type: ignore[return-value]

    return decorate


def _check(suite: Suite, deployment: object, capabilities: list[str], methods: list[str]) -> None:
    for name in capabilities:
        if name not in suite.capabilities:
            raise Missing(name, suite.limitations.get(name, KIT_CAPABILITIES[name]))
    if not methods:
        return
    if not isinstance(deployment, Deployment):
        raise TypeError("A scenario that needs hooks takes the fixture 'deployment'.")
    for name in methods:
        if name in deployment.cannot:
            raise Missing(name, deployment.cannot[name])
        if getattr(type(deployment), name) is getattr(Deployment, name) and not name.endswith("_process"):
            pytest.fail(
                f"{type(deployment).__name__} does not implement {name}(), which this scenario needs. Implement it, or "
                f"say in {type(deployment).__name__}.cannot why that is impossible.",
                pytrace=False,
            )


def _record(suite: Suite, name: str, title: str, outcome: str, missing: Missing | None, seconds: float) -> None:
    target = os.environ.get(VARIABLE)
    if not target:
        return
    line: Outcome = {
        "suite": type(suite).__name__,
        "subject": suite.subject,
        "kit": suite.kit,
        "scenario": name,
        "title": title,
        "outcome": outcome,
        "capability": missing.capability if missing else None,
        "sentence": missing.sentence if missing else None,
        "seconds": round(seconds, 3),
    }
    with open(target, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
