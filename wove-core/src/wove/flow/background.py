"""Weaves that go on after their block: in a thread, or in a detached process."""

import asyncio
import inspect
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from wove import serialization
from wove.errors import SerializationError
from wove.flow.doors import Cancellable, WaitedFor, run_to_end
from wove.flow.planning import Plan, configured, execute, make_plan
from wove.flow.result import WoveResult
from wove.flow.tasks import TaskSpec
from wove.options import WeaveOptions
from wove.runtime import runtime

logger = logging.getLogger("wove")


def run_in_thread(plan: Plan, result: WoveResult) -> None:
    """Run a plan in a thread of its own and hand the result to ``on_done``.

    The thread is no daemon: a program that ends waits for its background weaves.
    """
    result._fill({run.name: run for run in plan.runs})
    work = Cancellable(partial(execute, plan, result), loop=plan.loop)
    context = copy_context()

    def run_and_forget() -> None:
        context.run(_run, plan, result, work)
        _threads.discard(thread)

    thread = WaitedFor(run_and_forget, work, name=f"wove-background-{plan.weave[:8]}")
    _hold_up_the_exit(thread)
    thread.start()


_threads: set[WaitedFor] = set()


def _hold_up_the_exit(thread: WaitedFor) -> None:
    """Let the interpreter's exit wait for a thread before it shuts anything down that tasks may need.

    It joins the threads that are no daemons by itself, but only after it has closed the default executors of all event
    loops for new work, and a loop cannot even look up a host name without one.
    """
    _register_once()
    _threads.add(thread)


@cache
def _register_once() -> None:
    # Registered before us, so that it is called after us: the order is reversed.
    import concurrent.futures.thread  # noqa: F401

    # Private, and the only door that is open before those executors close.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_join_all)
        except RuntimeError:
            pass  # The exit has begun.


def _join_all() -> None:
    try:
        _join_each()
    except KeyboardInterrupt:
        # Whoever does not want to wait lets the tasks clean up; another Ctrl-C leaves them.
        for thread in list(_threads):
            thread.work.cancel()
        _join_each()
        raise


def _join_each() -> None:
    while _threads:
        thread = next(iter(_threads))
        # In a process that was forked off, there is no such thread.
        if thread.is_alive():
            thread.wait()
        _threads.discard(thread)


def _run(plan: Plan, result: WoveResult, work: Cancellable) -> None:
    try:
        run_to_end(work, plan.context)
    except BaseException as error:  # Nobody waits for this thread, so the result must say it.
        _add_failure(result, plan, error)
    _notify(plan.options["on_done"], result)


def _add_failure(result: WoveResult, plan: Plan, error: BaseException) -> None:
    first, failures = result.exception, list(result.failures)
    if not any(known is error for known in failures):
        failures.append(error)
    result._fill({run.name: run for run in plan.runs}, failures, first or error)


def _notify(on_done: Any, result: WoveResult) -> None:
    if on_done is None:
        return
    try:
        answer = on_done(result)
        if inspect.isawaitable(answer):
            asyncio.run(_awaited(answer))
    except BaseException:
        # No representation: that of a partial shows what it was given.
        named = on_done if hasattr(on_done, "__qualname__") else getattr(on_done, "func", type(on_done))
        logger.exception("on_done of a background weave raised. It is %s.", getattr(named, "__qualname__", "unnamed"))


async def _awaited(awaitable: Any) -> None:
    await awaitable


@dataclass(frozen=True, slots=True)
class Background:
    """Everything that another process needs to run a weave.

    Attributes:
        specs: the tasks.
        values: the initial values.
        task_options, options: what the weave was given, and its effective options.
    """

    specs: Sequence[TaskSpec]
    values: Mapping[str, Any]
    task_options: Mapping[str, Any]
    options: WeaveOptions


def run_in_process(background: Background) -> None:
    """Start a detached process that runs a weave; it goes on when this one ends.

    Raises:
        SerializationError: a task, an initial value, ``on_done`` or an executor in the configuration cannot be pickled.
        MissingDispatchFeatureError: cloudpickle is not installed.
    """
    serialization.require_serializer("weave(background=True, fork=True)")
    work = _pickled(background)
    # The file has no name any more once it is open: nobody else can read it, and nothing is left of it.
    with tempfile.TemporaryFile() as file:
        pickle.dump(sys.path, file)
        file.write(work)
        file.flush()
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "wove.flow.background"], stdin=file, start_new_session=True, close_fds=True
        )
    # Somebody must take note of the end, or a zombie stays for as long as this process lives.
    threading.Thread(target=process.wait, name="wove-background-process", daemon=True).start()


def _pickled(background: Background) -> bytes:
    configuration = runtime.snapshot()
    try:
        return serialization.dumps((background, configuration), what="the weave to a background process")
    except SerializationError:
        # One by one they tell better which of them it is.
        for spec in background.specs:
            for part in (spec.function, spec.source, spec.options):
                serialization.dumps(part, what=f"task {spec.name!r} to a background process")
        for name, value in background.values.items():
            serialization.dumps(value, what=f"the initial value {name!r} to a background process")
        serialization.dumps(background.options["on_done"], what="on_done to a background process")
        serialization.dumps(configuration, what="the configuration to a background process")
        raise


def main() -> None:
    """Run the weave that standard input describes."""
    with os.fdopen(os.dup(0), "rb") as file:
        sys.path[:] = pickle.load(file)
        background, configuration = serialization.loads(file.read(), what="a background weave")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    result = WoveResult(background.options["error_mode"])
    try:
        runtime.restore(configuration)
        defaults = configured(background.task_options)
        plan = make_plan(background.specs, background.values, defaults, background.options, copy_context())
    except Exception as error:
        result._fill({}, [error], error)
        _notify(background.options["on_done"], result)
        return
    _run(plan, result, Cancellable(partial(execute, plan, result), loop=plan.loop))


if __name__ == "__main__":
    main()
