"""`merge`: call or map something from inside a running task, by the rules of its weave."""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, Unpack

from wove.flow.attempts import Call
from wove.flow.current import current_engine
from wove.flow.engine import Engine
from wove.flow.graph import Node
from wove.flow.mapping import map_over
from wove.flow.runs import Outcome, TaskRun
from wove.flow.tasks import UNMAPPED, Parameters, TaskSpec, is_iterable, name_of
from wove.options import TaskOptions, check_options

_NO_PARAMETERS = Parameters((), frozenset(), (), 0)
_ITEM = Parameters(("item",), frozenset({"item"}), ("item",), 1)


def merge(
    callable: Callable[..., Any],
    iterable: Iterable[Any] | None = None,
    **options: Unpack[TaskOptions],
) -> Any:
    """Run a callable, or map it over an iterable, as part of the weave whose task is running.

    In a synchronous task it returns the value; in an asynchronous one it returns an awaitable of it. It may be nested
    to any depth and never deadlocks, whatever `max_workers` is.

    Args:
        callable: called without arguments, or once for each item.
        iterable: what to map over; async iterables and generators too. None: a single call.
        options: task options, as for ``@w.do``.

    Returns:
        The callable's value, or the list of values in the order of the items.

    Raises:
        RuntimeError: no task of a weave is running here.
        OptionError: an option is unknown or has a bad value.
        Exception: what the callable raised.
    """
    engine = current_engine.get(None)
    if engine is None:
        raise RuntimeError(
            "merge() works inside a task of a weave that runs in this process. "
            "Declare a task with @w.do and call merge() there."
        )
    name = f"merge({name_of(callable)})"
    check_options(options, where=name, mapped=iterable is not None)
    if iterable is not None and not is_iterable(iterable):
        raise TypeError(f"{name}: {type(iterable).__name__!r} cannot be iterated over.")
    engine.refuse_if_over(name)
    run = _record(engine, name, callable, iterable is not None, options)
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return _unpacked(engine.wait_for(_outcome(engine, run, iterable), name))
    if running is engine.loop:
        return _merged(engine, run, iterable)
    return _merged_elsewhere(engine, run, iterable)


async def _merged(engine: Engine, run: TaskRun, iterable: Any) -> Any:
    return _unpacked(await _outcome(engine, run, iterable))


async def _merged_elsewhere(engine: Engine, run: TaskRun, iterable: Any) -> Any:
    return _unpacked(await engine.wait_elsewhere(_outcome(engine, run, iterable), run.name))


def _unpacked(outcome: Outcome) -> Any:
    value, failure = outcome
    if failure is not None:
        raise failure
    return value


async def _outcome(engine: Engine, run: TaskRun, iterable: Any) -> Outcome:
    if run.node.spec.mapped:
        return await map_over(engine, run, iterable, {})
    return await Call(engine, run).outcome({})


def _record(engine: Engine, name: str, function: Callable[..., Any], mapped: bool, options: TaskOptions) -> TaskRun:
    spec = TaskSpec(
        name,
        function,
        source=() if mapped else UNMAPPED,
        options=dict(options),
        parameters=_ITEM if mapped else _NO_PARAMETERS,
    )
    node = Node(-1, spec)
    node.item_parameter = "item" if mapped else None
    settings, effective = engine.defaults.effective(spec)
    if not settings.is_local:
        engine.environments.setdefault(settings.name, settings.definition)
    return TaskRun(node, effective, environment=settings.name, is_local=settings.is_local, context=copy_context())
