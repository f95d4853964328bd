"""The async context managers that plugins put around an attempt at a task."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

T = TypeVar("T")

Outcome = tuple[T, BaseException | None]
"""A value, or the exception that took its place."""


class ManagerSource(Protocol):
    """A plugin's implementation of `wove_around_task`."""

    def __call__(self, given: Mapping[str, object]) -> object: ...

    def log_failure(self, what: str, error: BaseException) -> None: ...


class AroundTask:
    """Runs attempts inside of the plugins' context managers.

    The managers observe: none of them can change, suppress or lose the outcome of the attempt.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Sequence[ManagerSource]) -> None:
        self._sources = sources

    async def __call__(
        self,
        call: Callable[[], Awaitable[Outcome[T]]],
        *,
        weave: str,
        task: str,
        environment: str,
        attempt: int,
        item: int | None,
    ) -> Outcome[T]:
        """Enter every manager, await ``call()``, leave them in reverse order and return what the call returned.

        Args:
            call: makes the attempt and returns its outcome; what it raises is raised after the managers are left.

        Raises:
            CancelledError: the attempt was cancelled, be it while a manager was entered or left.
        """
        given = {"weave": weave, "task": task, "environment": environment, "attempt": attempt, "item": item}
        entered: list[tuple[ManagerSource, AbstractAsyncContextManager[object]]] = []
        try:
            for source in self._sources:
                await _enter(source, given, entered)
            outcome = await call()
        except BaseException as error:
            await _leave(entered, error)
            raise
        await _leave(entered, outcome[1])
        return outcome


async def _enter(
    source: ManagerSource,
    given: Mapping[str, object],
    entered: list[tuple[ManagerSource, AbstractAsyncContextManager[object]]],
) -> None:
    try:
        manager = source(given)
        if manager is None:
            return
        if not isinstance(manager, AbstractAsyncContextManager):
            raise TypeError(
                f"an async context manager, or None, is expected, not {manager!r}. "
                "Decorate an async generator with contextlib.asynccontextmanager."
            )
        await manager.__aenter__()
        entered.append((source, manager))
    except (Exception, asyncio.CancelledError) as error:
        if _cancels_attempt(error):
            raise
        source.log_failure("raised while it was entered", error)


async def _leave(
    entered: list[tuple[ManagerSource, AbstractAsyncContextManager[object]]], outcome: BaseException | None
) -> None:
    """Leave the managers, the last entered one first; a cancellation meanwhile becomes the outcome of the others.

    Raises:
        CancelledError: the attempt was cancelled while a manager was left; the others have been left nevertheless.
    """
    cancellation: BaseException | None = None
    while entered:
        source, manager = entered.pop()
        error = cancellation or outcome
        try:
            await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except (Exception, asyncio.CancelledError) as raised:
            if raised is error:
                continue
            if _cancels_attempt(raised):
                cancellation = raised
            else:
                source.log_failure("raised while it was left", raised)
    if cancellation is not None:
        raise cancellation


def _cancels_attempt(error: BaseException) -> bool:
    """Whether somebody cancelled the current task; a plugin may also raise a CancelledError of its own making."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    current = asyncio.current_task()
    return current is None or current.cancelling() > 0
