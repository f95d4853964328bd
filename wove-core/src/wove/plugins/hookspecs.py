"""The hooks that a plugin may implement: these docstrings are their manual.

An implementation is a function or method of the hook's name, marked with `hookimpl`. It declares only the parameters
that it needs, by their names here. It is a plain function, called where Wove is at that moment: on the event loop of
the weave, or on Wove's background loop for `wove_task_submitted` and `wove_event_received`. So it must not block, and
it may be called for several weaves at once, from several threads.

**Order**: the plugin that was registered last is called first; ``@hookimpl(tryfirst=True)`` and ``trylast=True`` change
that.

**Failures**: a hook that observes and raises is logged under ``wove.plugins`` with its plugin's name, and changes
nothing. `wove_veto` and `wove_task_options` decide something; if one of them raises, the weave does not start, because
running it without the decision could be what it was to prevent.

**Names**: `weave` is an opaque id that the hooks of one weave share. `task` is a task's name. `item` is the index of an
item of a mapped task, or None. `attempt` counts from 1.

The order of a weave is: `wove_task_options` for each task, `wove_veto`, `wove_weave_planned`; then for each task
`wove_task_ready`, and for each attempt at it, or at each of its items, `wove_around_task` with `wove_task_started`
and for remote ones `wove_trace_context`, `wove_task_submitted`, `wove_event_received`; between two attempts
`wove_task_retried`; then one of `wove_task_finished`, `wove_task_failed`, `wove_task_cancelled`. The last is
`wove_weave_finished`.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from pluggy import HookimplMarker, HookspecMarker

from wove.options import TaskOptions
from wove.plugins.types import ExecutionPlan, FinishedResult, FinishedRun

PROJECT = "wove"

hookspec = HookspecMarker(PROJECT)
hookimpl = HookimplMarker(PROJECT)
"""Marks an implementation of a hook; ``@hookimpl`` or ``@hookimpl(tryfirst=True)``."""


@hookspec
def wove_task_options(weave: str, task: str, options: TaskOptions, mapped: bool) -> Mapping[str, object] | None:
    """Set a policy for the options of a task. Called once per task, before the weave is planned.

    Args:
        options: the effective options, complete and read-only, as the plugins called before left them.
        mapped: whether the task runs once per item; some options have a meaning only then.

    Returns:
        The options to change, with their new values; those left out stay. None changes nothing. A name or value that
        `wove.options.check_options` refuses ends the weave with an `OptionError` that names the plugin.
    """


@hookspec
def wove_veto(weave: str, plan: ExecutionPlan) -> str | None:
    """Refuse to run a graph. Called once per weave, before any task or executor starts.

    Returns:
        A reason, in words for the author of the weave: the weave ends with a `GraphRejectedError` that names the plugin
        and the reason, and plugins that were not asked yet are not asked. None has no objection.
    """


@hookspec
def wove_weave_planned(weave: str, plan: ExecutionPlan, options: Mapping[str, object]) -> None:
    """A weave is about to run.

    Args:
        options: the weave's effective options, such as ``debug`` and ``max_workers``; read-only.
    """


@hookspec
def wove_weave_finished(weave: str, result: FinishedResult, runs: Mapping[str, FinishedRun]) -> None:
    """A weave is over, whatever became of it. Every task of it has ended.

    Args:
        result: the `WoveResult`, its ``timings`` filled in. Do not read single results: a failed one raises.
        runs: what is recorded of each task, by name.
    """


@hookspec
def wove_task_ready(weave: str, task: str) -> None:
    """The last dependency of a task has ended. It starts as soon as there is a place for it."""


@hookspec
def wove_task_started(weave: str, task: str, item: int | None, attempt: int, environment: str) -> None:
    """An attempt at a task, or at one item of it, begins. A remote one is about to be submitted."""


@hookspec
def wove_task_retried(weave: str, task: str, item: int | None, attempt: int, exception: BaseException) -> None:
    """An attempt has failed and another one follows.

    Args:
        attempt: the number of the failed attempt.
        exception: why it failed.
    """


@hookspec
def wove_task_finished(weave: str, task: str, seconds: float) -> None:
    """A task has a result.

    Args:
        seconds: from its first start to its end: all attempts, and all items of a mapped task.
    """


@hookspec
def wove_task_failed(weave: str, task: str, exception: BaseException) -> None:
    """A task has failed for good: every attempt is used up."""


@hookspec
def wove_task_cancelled(weave: str, task: str) -> None:
    """A task was stopped, or never started, because another one failed or the weave was given up."""


@hookspec
def wove_task_submitted(weave: str, task: str, run_id: str, environment: str) -> None:
    """A remote task has been handed to its executor.

    Args:
        run_id: the id of this attempt, which the backend knows too.
    """


@hookspec
def wove_event_received(weave: str, task: str, run_id: str, event_type: str) -> None:
    """A verified event about a remote task has arrived.

    Args:
        event_type: ``task_started``, ``heartbeat``, ``log``, ``task_result``, ``task_error`` or ``task_cancelled``.
    """


@hookspec
def wove_around_task(
    weave: str, task: str, environment: str, attempt: int, item: int | None
) -> AbstractAsyncContextManager[object] | None:
    """Wrap each attempt at a task, or at one item of it, in an async context manager: a span, a lock, a log context.

    It is entered before the attempt and left after it, in one asyncio task and one context, so context variables that
    it sets are seen by the task's code. The managers of several plugins nest; that of the plugin called first is the
    outermost. Time spent in it counts for the task's ``timeout``.

    The manager sees the outcome and cannot change it: the exception of a failed or cancelled attempt is passed to
    ``__aexit__``; one that claims to suppress it (returns True) is not heard, and the task fails as before. One that
    raises while it is entered is logged and not left; one that raises while it is left is logged, and the task keeps
    its result or its exception. Only a cancellation of the attempt itself goes through.

    Returns:
        The manager, or None for a task of no interest.
    """


@hookspec
def wove_trace_context(weave: str, task: str) -> Mapping[str, str] | None:
    """Give the trace headers that travel with a remote task, such as ``traceparent``.

    Called inside of `wove_around_task`, so the span opened there is the current one. The worker finds them in the
    payload under ``trace``.

    Returns:
        Names and values, or None. Where two plugins give the same name, that of the plugin called first stays.
    """
