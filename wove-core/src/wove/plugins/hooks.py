"""Calls of hooks as Wove makes them: guarded, so that a plugin cannot break a weave it does not decide about."""

import logging
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ParamSpec, Protocol, cast

from wove.errors import AdapterError, GraphRejectedError, OptionError
from wove.options import TaskOptions, check_options
from wove.plugins import hookspecs, timings
from wove.plugins.around import AroundTask
from wove.plugins.types import ExecutionPlan

logger = logging.getLogger("wove.plugins")

P = ParamSpec("P")

# A synchronous hook cannot be interrupted by a cancellation, so a CancelledError out of it is the plugin's own.
PLUGIN_FAILURES = (Exception, CancelledError)


class Implementation(Protocol):
    """One plugin's implementation of one hook; `pluggy.HookImpl` is one."""

    @property
    def plugin_name(self) -> str: ...

    @property
    def function(self) -> Callable[..., object]: ...

    @property
    def argnames(self) -> Sequence[str]: ...

    @property
    def kwargnames(self) -> Sequence[str]: ...


class Listener:
    """One plugin's implementation of one hook, called with the arguments that it declares."""

    __slots__ = ("_defaulted", "_function", "_names", "hook", "plugin")

    def __init__(self, hook: str, implementation: Implementation) -> None:
        self.hook = hook
        self.plugin = implementation.plugin_name
        self._function = implementation.function
        self._names = tuple(implementation.argnames)
        self._defaulted = tuple(implementation.kwargnames)

    def __call__(self, given: Mapping[str, object]) -> object:
        arguments = [given[name] for name in self._names]
        if not self._defaulted:
            return self._function(*arguments)
        return self._function(*arguments, **{name: given[name] for name in self._defaulted if name in given})

    def log_failure(self, what: str, error: BaseException) -> None:
        logger.error(
            "Plugin %r: %s %s. It changes nothing for the weave.", self.plugin, self.hook, what, exc_info=error
        )


Implementations = Callable[[str], Sequence[Implementation]]


def observer(spec: Callable[P, object], implementations: Implementations) -> Callable[P, None] | None:
    """Return a call of every implementation of a hook that observes, or None if there is none.

    It takes the arguments by keyword, raises nothing that a plugin raised, and returns nothing.
    """
    listeners = _listeners(spec, implementations)
    if not listeners:
        return None

    def notify(*_: P.args, **given: P.kwargs) -> None:
        for listener in listeners:
            try:
                listener(given)
            except PLUGIN_FAILURES as error:
                listener.log_failure("raised", error)

    return notify


def _listeners(spec: Callable[..., object], implementations: Implementations) -> tuple[Listener, ...]:
    hook = spec.__name__
    return tuple(Listener(hook, implementation) for implementation in implementations(hook))


def _decision(listener: Listener, given: Mapping[str, object]) -> object:
    """Ask a plugin for a decision; where it fails to give one, the weave must not start."""
    try:
        return listener(given)
    except PLUGIN_FAILURES as error:
        raise AdapterError(
            f"Plugin {listener.plugin!r}: {listener.hook} raised {type(error).__name__}: {error}. The weave was not "
            f"started, because this hook decides whether and how it runs. Mend the plugin, uninstall it, or call "
            f"wove.plugins.unregister({listener.plugin!r})."
        ) from error


class Veto:
    """Asks the plugins whether a graph may run."""

    __slots__ = ("_listeners",)

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, *, weave: str, plan: ExecutionPlan) -> None:
        """Return if no plugin objects.

        Raises:
            GraphRejectedError: one does; names it and its reason.
            AdapterError: one failed to decide.
        """
        for listener in self._listeners:
            reason = _decision(listener, {"weave": weave, "plan": plan})
            if reason is None:
                continue
            if not isinstance(reason, str):
                raise AdapterError(
                    f"Plugin {listener.plugin!r}: wove_veto must return a reason (str) or None, not {reason!r}."
                )
            raise GraphRejectedError(listener.plugin, reason)


class OptionsPolicy:
    """Lets the plugins change a task's options, one after the other."""

    __slots__ = ("_listeners",)

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, *, weave: str, task: str, options: TaskOptions, mapped: bool) -> TaskOptions:
        """Return the options with every plugin's changes; the given ones are left as they are.

        Args:
            options: the complete options of the task.
            mapped: whether the task is mapped.

        Raises:
            OptionError: a plugin returned something that is no valid option; names the plugin.
            AdapterError: a plugin failed to decide.
        """
        current: dict[str, object] = {**options}
        for listener in self._listeners:
            given = {"weave": weave, "task": task, "options": MappingProxyType(current), "mapped": mapped}
            changes = _decision(listener, given)
            if changes is None:
                continue
            where = f"Plugin {listener.plugin!r}, wove_task_options for task {task!r}"
            if not isinstance(changes, Mapping):
                raise OptionError(f"{where}: return a mapping of the options to change, or None, not {changes!r}.")
            check_options(changes, where=where, mapped=mapped)
            current = {**current, **changes}
        return cast(TaskOptions, current)


class TraceContext:
    """Collects the trace headers of a remote task."""

    __slots__ = ("_listeners",)

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def __call__(self, *, weave: str, task: str) -> dict[str, str]:
        """Return the headers of all plugins; where two give the same name, that of the plugin called first."""
        trace: dict[str, str] = {}
        for listener in self._listeners:
            try:
                headers = listener({"weave": weave, "task": task})
                if headers is not None:
                    trace = {**_checked_headers(headers), **trace}
            except PLUGIN_FAILURES as error:
                listener.log_failure("gave no usable trace headers", error)
        return trace


def _checked_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise TypeError(f"a mapping of str to str, or None, is expected, not {headers!r}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"names and values must be str: {name!r}: {value!r}")
    return dict(headers)


class ActiveHooks:
    """The hooks that some plugin implements, one attribute each; an attribute is None where none does.

    So a hook that nobody listens to costs one comparison::

        if hooks.wove_task_ready is not None:
            hooks.wove_task_ready(weave=weave, task=task)

    Immutable and shared: any thread may call the hooks. Arguments go by keyword.

    Attributes:
        quiet: whether nobody listens but the plugin for timings.
    """

    def __init__(self, implementations: Implementations) -> None:
        def listeners(spec: Callable[..., object]) -> tuple[Listener, ...]:
            return _listeners(spec, implementations)

        policies = listeners(hookspecs.wove_task_options)
        vetoes = listeners(hookspecs.wove_veto)
        managers = listeners(hookspecs.wove_around_task)
        tracers = listeners(hookspecs.wove_trace_context)
        self.wove_task_options = OptionsPolicy(policies) if policies else None
        self.wove_veto = Veto(vetoes) if vetoes else None
        self.wove_around_task = AroundTask(managers) if managers else None
        self.wove_trace_context = TraceContext(tracers) if tracers else None
        self.wove_weave_planned = observer(hookspecs.wove_weave_planned, implementations)
        self.wove_weave_finished = observer(hookspecs.wove_weave_finished, implementations)
        self.wove_task_ready = observer(hookspecs.wove_task_ready, implementations)
        self.wove_task_started = observer(hookspecs.wove_task_started, implementations)
        self.wove_task_retried = observer(hookspecs.wove_task_retried, implementations)
        self.wove_task_finished = observer(hookspecs.wove_task_finished, implementations)
        self.wove_task_failed = observer(hookspecs.wove_task_failed, implementations)
        self.wove_task_cancelled = observer(hookspecs.wove_task_cancelled, implementations)
        self.wove_task_submitted = observer(hookspecs.wove_task_submitted, implementations)
        self.wove_event_received = observer(hookspecs.wove_event_received, implementations)
        finish = hookspecs.wove_weave_finished.__name__
        self.quiet = all(each.plugin_name == timings.NAME for each in implementations(finish)) and not any(
            heard is not None for name, heard in vars(self).items() if name != finish
        )
