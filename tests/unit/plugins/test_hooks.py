"""Hooks as Wove calls them: what observers, policies and vetoes can do to a weave."""

import logging
from asyncio import CancelledError
from collections.abc import Mapping

import pytest

from tests.unit.plugins.conftest import Registering
from wove.errors import AdapterError, GraphRejectedError, OptionError
from wove.options import TASK_DEFAULTS, TaskOptions
from wove.plugins import active_hooks, hookimpl
from wove.plugins.types import ExecutionPlan

PLAN: ExecutionPlan = {"dependencies": {}, "dependents": {}, "tiers": [], "sorted_tasks": [], "tasks": {}}


class Retrying:
    """Hears of retries with the parameters that a plugin declares."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []


class Everything(Retrying):
    @hookimpl
    def wove_task_retried(
        self, weave: str, task: str, item: int | None, attempt: int, exception: BaseException
    ) -> None:
        self.heard.append((weave, task, item, attempt, exception))


class Some(Retrying):
    @hookimpl
    def wove_task_retried(self, attempt: int, task: str) -> None:
        self.heard.append((attempt, task))


class Nothing(Retrying):
    @hookimpl
    def wove_task_retried(self) -> None:
        self.heard.append(())


class Defaults(Retrying):
    @hookimpl
    def wove_task_retried(self, task: str, attempt: int = 99) -> None:
        self.heard.append((task, attempt))


class Static:
    heard: list[tuple[object, ...]]

    @staticmethod
    @hookimpl
    def wove_task_retried(task: str) -> None:
        Static.heard.append((task,))


def _retried(error: BaseException) -> None:
    hook = active_hooks().wove_task_retried
    assert hook is not None
    hook(weave="w1", task="report", item=None, attempt=2, exception=error)


def test_an_observer_gets_the_parameters_that_it_declares_in_any_order(take: Registering) -> None:
    Static.heard = []
    everything, some, nothing, defaults = plugins = Everything(), Some(), Nothing(), Defaults()
    for plugin in plugins:
        take(plugin)
    take(Static())
    error = ValueError()
    _retried(error)
    assert everything.heard == [("w1", "report", None, 2, error)]
    assert some.heard == [(2, "report")]
    assert nothing.heard == [()]
    assert defaults.heard == [("report", 2)]
    assert Static.heard == [("report",)]


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def wove_task_ready(self) -> None:
        raise self.error


class Heard:
    def __init__(self) -> None:
        self.count = 0

    @hookimpl
    def wove_task_ready(self) -> None:
        self.count += 1


@pytest.mark.parametrize("error", [ValueError("boom"), CancelledError("boom")], ids=repr)
def test_an_observer_that_raises_is_logged_with_its_name_and_the_others_hear_nevertheless(
    take: Registering, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    before, after = Heard(), Heard()
    take(before)
    take(Broken(error), "acme")
    take(after)
    hook = active_hooks().wove_task_ready
    assert hook is not None
    hook(weave="w1", task="report")
    assert (before.count, after.count) == (1, 1)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("wove.plugins", logging.ERROR)
    assert "'acme'" in record.getMessage()
    assert "wove_task_ready" in record.getMessage()
    assert "boom" in caplog.text


def test_an_interrupt_passes_through_an_observer(take: Registering) -> None:
    take(Broken(KeyboardInterrupt()))
    hook = active_hooks().wove_task_ready
    assert hook is not None
    with pytest.raises(KeyboardInterrupt):
        hook(weave="w1", task="report")


class Ordered:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls

    @hookimpl
    def wove_task_ready(self) -> None:
        self.calls.append(self.name)


class First(Ordered):
    @hookimpl(tryfirst=True)
    def wove_task_ready(self) -> None:
        self.calls.append(self.name)


def test_the_plugin_registered_last_is_called_first_behind_those_that_try_to_be(take: Registering) -> None:
    calls: list[str] = []
    for plugin in (First("first", calls), Ordered("early", calls), Ordered("late", calls)):
        take(plugin)
    hook = active_hooks().wove_task_ready
    assert hook is not None
    hook(weave="w1", task="report")
    assert calls == ["first", "late", "early"]


class Judge:
    def __init__(self, verdict: object) -> None:
        self.verdict = verdict
        self.asked = 0

    @hookimpl
    def wove_veto(self, weave: str, plan: ExecutionPlan) -> object:
        self.asked += 1
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return self.verdict


def _ask() -> None:
    veto = active_hooks().wove_veto
    assert veto is not None
    veto(weave="w1", plan=PLAN)


def test_a_graph_that_nobody_objects_to_passes(take: Registering) -> None:
    judges = [Judge(None), Judge(None)]
    for judge in judges:
        take(judge)
    _ask()
    assert [judge.asked for judge in judges] == [1, 1]


def test_a_veto_names_the_plugin_and_its_reason_and_ends_the_asking(take: Registering) -> None:
    unasked = Judge(None)
    take(unasked)
    take(Judge("more than 100 tasks"), "limits")
    with pytest.raises(GraphRejectedError, match=r"'limits' rejected .* more than 100 tasks") as caught:
        _ask()
    assert (caught.value.plugin, caught.value.reason) == ("limits", "more than 100 tasks")
    assert unasked.asked == 0


def test_a_veto_that_raises_stops_the_weave_with_an_error_that_chains_it(take: Registering) -> None:
    cause = LookupError("no policy server")
    take(Judge(cause), "limits")
    with pytest.raises(AdapterError, match="'limits': wove_veto raised LookupError: no policy server") as caught:
        _ask()
    assert caught.value.__cause__ is cause


def test_a_veto_must_be_a_reason(take: Registering) -> None:
    take(Judge(False), "limits")
    with pytest.raises(AdapterError, match="'limits': wove_veto must return a reason"):
        _ask()


class Policy:
    def __init__(self, changes: object) -> None:
        self.changes = changes
        self.seen: list[dict[str, object]] = []

    @hookimpl
    def wove_task_options(self, task: str, options: Mapping[str, object], mapped: bool) -> object:
        self.seen.append({"task": task, "mapped": mapped, **options})
        if isinstance(self.changes, BaseException):
            raise self.changes
        return self.changes


class Meddling:
    @hookimpl
    def wove_task_options(self, options: dict[str, object]) -> None:
        options["retries"] = 5


OPTIONS: TaskOptions = {**TASK_DEFAULTS, "retries": 1, "timeout": 10.0}


def _apply(options: TaskOptions = OPTIONS, *, mapped: bool = False) -> TaskOptions:
    policy = active_hooks().wove_task_options
    assert policy is not None
    return policy(weave="w1", task="report", options=options, mapped=mapped)


def test_a_policy_changes_the_options_that_it_returns_and_leaves_the_others(take: Registering) -> None:
    take(Policy({"retries": 4}))
    assert _apply() == {**OPTIONS, "retries": 4}
    assert OPTIONS["retries"] == 1


def test_a_policy_that_returns_none_changes_nothing(take: Registering) -> None:
    take(Policy(None))
    assert _apply() == OPTIONS


def test_policies_see_what_those_before_them_decided(take: Registering) -> None:
    second = Policy({"timeout": 3.0})
    take(second)
    take(Policy({"retries": 4, "timeout": 5.0}))
    assert _apply() == {**OPTIONS, "retries": 4, "timeout": 3.0}
    assert second.seen == [{**OPTIONS, "task": "report", "mapped": False, "retries": 4, "timeout": 5.0}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retires": 2}, "no option named 'retires'. Did you mean 'retries'?"),
        ({"retries": -1}, "retries must be a whole number"),
        ({"workers": 2}, "workers has a meaning on mapped tasks only"),
        (["retries"], "return a mapping of the options to change"),
    ],
)
def test_what_a_policy_returns_is_checked_and_the_plugin_named(
    take: Registering, changes: object, message: str
) -> None:
    take(Policy(changes), "limits")
    with pytest.raises(OptionError) as caught:
        _apply()
    assert "Plugin 'limits', wove_task_options for task 'report'" in str(caught.value)
    assert message in str(caught.value)


def test_a_policy_may_set_the_options_of_mapped_tasks_on_them(take: Registering) -> None:
    take(Policy({"workers": 2}))
    assert _apply(mapped=True)["workers"] == 2


@pytest.mark.parametrize("plugin", [Policy(LookupError("no server")), Meddling()], ids=["raises", "meddles"])
def test_a_policy_that_fails_stops_the_weave_and_is_named(take: Registering, plugin: object) -> None:
    take(plugin, "limits")
    with pytest.raises(AdapterError, match="'limits': wove_task_options raised"):
        _apply()
    assert OPTIONS["retries"] == 1


class Tracer:
    def __init__(self, headers: object) -> None:
        self.headers = headers

    @hookimpl
    def wove_trace_context(self) -> object:
        if isinstance(self.headers, BaseException):
            raise self.headers
        return self.headers


def _trace() -> dict[str, str]:
    trace = active_hooks().wove_trace_context
    assert trace is not None
    return trace(weave="w1", task="report")


def test_trace_headers_are_merged_and_the_plugin_called_first_prevails(take: Registering) -> None:
    for headers in ({"traceparent": "second", "tracestate": "s"}, None, {"traceparent": "first"}):
        take(Tracer(headers))
    assert _trace() == {"traceparent": "first", "tracestate": "s"}


@pytest.mark.parametrize("headers", [{"traceparent": 7}, {7: "x"}, "traceparent", RuntimeError("no span")], ids=repr)
def test_unusable_trace_headers_are_logged_and_left_out(
    take: Registering, caplog: pytest.LogCaptureFixture, headers: object
) -> None:
    take(Tracer({"traceparent": "good"}))
    take(Tracer(headers), "acme")
    assert _trace() == {"traceparent": "good"}
    assert "Plugin 'acme': wove_trace_context gave no usable trace headers" in caplog.text
