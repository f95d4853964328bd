"""Chooses how a mapped task runs over its items: drained by threads, or each on the event loop."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from wove.flow.attempts import Call, awaited
from wove.flow.loop_map import LoopMap
from wove.flow.runs import Outcome, TaskRun, discard
from wove.flow.sources import check_source
from wove.flow.thread_map import ThreadMap

if TYPE_CHECKING:
    from wove.flow.engine import Engine


async def map_over(engine: "Engine", run: TaskRun, source: Any, arguments: dict[str, Any]) -> Outcome:
    """Run a mapped task's callable over a source.

    Returns:
        The list of values in the order of the items, or the first failure.
    """
    try:
        check_source(run, source)
        if _fits_threads(engine, run, source):
            return await _map_on_threads(engine, run, source, arguments)
        parameter = cast(str, run.node.item_parameter)
        call = Call(engine, run)

        def one(item: Any, index: int) -> Coroutine[Any, Any, Outcome]:
            return call.outcome({parameter: item, **arguments}, index)

        plain = item_call(run, arguments) if run.plain and engine.unobserved and run.node.spec.is_async else None
        return await LoopMap(engine, run, one, plain, limit=_most_at_once(engine, run)).outcome(source)
    except Exception as error:  # The source, not an item.
        return None, error


def _most_at_once(engine: "Engine", run: TaskRun) -> int | None:
    workers = run.options["workers"]
    # More items than threads would do nothing but wait for one.
    return min(workers or engine.max_workers, engine.max_workers) if run.on_threads else workers


def _fits_threads(engine: "Engine", run: TaskRun, source: Any) -> bool:
    """Whether threads may drain the items by themselves: nothing of an item concerns the loop."""
    options = run.options
    return (
        run.on_threads
        and engine.unobserved
        and engine.hooks.wove_task_retried is None
        and options["timeout"] is None
        and options["limit_per_minute"] is None
        and not hasattr(type(source), "__aiter__")
    )


async def _map_on_threads(engine: "Engine", run: TaskRun, source: Any, arguments: dict[str, Any]) -> Outcome:
    mapping = ThreadMap(engine, run, item_call(run, arguments))
    values, failure = await mapping.outcome(source)
    if failure is not None or not any(hasattr(type(value), "__await__") for value in values):
        return values, failure
    return await _await_values(engine, run, values, items=mapping.items, arguments=arguments)


async def _await_values(
    engine: "Engine", run: TaskRun, values: list[Any], *, items: dict[int, Any], arguments: dict[str, Any]
) -> Outcome:
    """Await what a synchronous callable returned where it returned awaitables, as a lambda around a coroutine does."""
    parameter = cast(str, run.node.item_parameter)

    async def one(value: Any, index: int) -> Outcome:
        if not hasattr(type(value), "__await__"):
            return value, None
        outcome = await awaited(value, run.name)
        if isinstance(outcome[1], Exception) and index in items:
            # The first attempt was the call on the thread.
            return await Call(engine, run).outcome({parameter: items[index], **arguments}, index, first=2)
        return outcome

    try:
        return await LoopMap(engine, run, one, limit=run.options["workers"]).outcome(values)
    finally:
        for value in values:
            discard(value)


def item_call(run: TaskRun, arguments: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a callable of the item alone, as cheap to call as can be."""
    spec = run.node.spec
    function = spec.function
    parameter = run.node.item_parameter or ""
    if not arguments and spec.parameters.positional and parameter == spec.parameters.names[0]:
        return function
    if parameter in spec.parameters.positional_only:
        return lambda item: function(item, **arguments)
    return lambda item: function(**{parameter: item}, **arguments)
