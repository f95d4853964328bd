"""`weave`: the block in which tasks are declared, and at whose end they run."""

from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from types import FunctionType, TracebackType
from typing import Any, Self, TypeVar, overload

from wove.errors import OptionError, ReservedNameError
from wove.flow.doors import run_blocking, run_here
from wove.flow.graph import Graph
from wove.flow.planning import Plan, configured, execute, make_plan, split_keywords
from wove.flow.result import RESERVED, WoveResult
from wove.flow.tasks import UNMAPPED, TaskSpec, declare, is_iterable, name_of
from wove.flow.template import Weave, tasks_of
from wove.options import WEAVE_OPTIONS, ErrorMode, check_options

F = TypeVar("F", bound=Callable[..., Any])


class weave:  # noqa: N801 - the public name; it reads as a statement
    """A block of tasks that run concurrently when the block ends.

    ::

        with weave(user_id=7) as w:

            @w.do
            def user(user_id):
                return load_user(user_id)

            @w.do(retries=2, timeout=5.0)
            async def orders(user_id):
                return await fetch_orders(user_id)

            @w.do
            def page(user, orders):
                return render(user, orders)

        page = w.result.page

    Parameter names make the dependency graph: a task starts the moment its own dependencies have ended. ``async with``
    runs the tasks on the running loop; ``with`` blocks until they have ended, also where a loop runs in this thread. An
    exception that the block itself raises leaves it unchanged, and nothing runs.

    Args:
        parent: a `Weave` class whose methods are tasks, too.
        debug: print the execution plan before the tasks run.
        environment: the name of the environment for tasks that name none.
        max_workers: the most threads that synchronous tasks use.
        background: run in a thread and go on at once; ``on_done`` gets the result.
        fork: with ``background``, run in a detached process (needs ``wove[dispatch]``).
        on_done: called with the `WoveResult` of a background weave, also after a failure; synchronous or asynchronous.
        max_pending: the most items that a mapped task may have.
        error_mode: ``"raise"``: reading a failed result raises; ``"return"``: it returns the exception; ``"exit"``: the
            block itself raises the first failure.
        options_and_values: task options, for all tasks of the weave, and initial values: parameters of tasks by name,
            and together the dict ``data``.

    Raises:
        OptionError: an option is misspelled or has a bad value.
        ReservedNameError: an initial value bears the name of a result attribute.
        UnknownEnvironmentError: no configuration defines the environment.
    """

    def __init__(
        self,
        /,  # So that a method may hand over its object: weave(self=self).
        parent: type[Weave] | None = None,
        *,
        debug: bool | None = None,
        environment: str | None = None,
        max_workers: int | None = None,
        background: bool | None = None,
        fork: bool | None = None,
        on_done: Callable[[WoveResult], Any] | None = None,
        max_pending: int | None = None,
        error_mode: ErrorMode | None = None,
        **options_and_values: Any,
    ) -> None:
        given: dict[str, object] = {
            "debug": debug,
            "max_workers": max_workers,
            "background": background,
            "fork": fork,
            "on_done": on_done,
            "max_pending": max_pending,
            "error_mode": error_mode,
        }
        given = {name: value for name, value in given.items() if value is not None}
        check_options(given, where="weave()", known=WEAVE_OPTIONS)
        self._task_options, self._values = split_keywords(options_and_values)
        if environment is not None:
            self._task_options["environment"] = environment
        check_options(self._task_options, where="weave()")
        for name in self._values:
            _refuse_reserved(name, f"weave({name}=...)")
        self._defaults = configured(self._task_options)
        self._options = self._defaults.weave_options(given)
        _check_background(given, background=self._options["background"])
        self._specs: dict[str, TaskSpec] = {}
        self._inherited: set[str] = set()
        if parent is not None:
            self._inherit(parent)
        self._result = WoveResult(self._options["error_mode"])
        self._lambdas = 0
        self._over = False

    # --- declaring ---

    @overload
    def do(self, function: F, /) -> F: ...
    @overload
    def do(self, source: object = ..., /, **options: Any) -> Callable[[F], F]: ...
    def do(self, source: Any = UNMAPPED, /, **options: Any) -> Any:
        """Declare a task: ``@w.do``, ``@w.do(**options)``, ``@w.do(iterable)`` or ``@w.do("name of a task or value")``.

        The callable (``def``, ``async def``, lambda, partial, any callable) stays usable as it is. Each parameter
        receives the result of the task, or the initial value, of its name; one with a default may be left over. A
        mapped task has exactly one parameter that is neither, and receives the item by it.

        Args:
            source: what to map over; None given: the task runs once.
            options: see `TaskOptions`.

        Raises:
            OptionError: an option is misspelled, misplaced or has a bad value.
            ReservedNameError: the name is a result attribute's, or already taken in this weave.
            RuntimeError: the block has ended, so the task would never run.
        """
        if type(source) is FunctionType or (callable(source) and not is_iterable(source)):
            return self._declare(source, source=UNMAPPED, options=options)
        return partial(self._declare, source=source, options=options)

    def _declare(self, function: F, *, source: object, options: Mapping[str, object]) -> F:
        if not callable(function):
            raise TypeError(f"@w.do: a task is a function or another callable, not {function!r}.")
        if self._over:
            raise RuntimeError(
                f"Task {name_of(function)!r} would never run: the block of its weave has ended. "
                "Declare it inside the block; what a running task needs, it calls with merge()."
            )
        name = self._free_name(function)
        parent = self._specs[name] if name in self._inherited else None
        self._specs[name] = declare(name, function, source, options, parent=parent)
        self._inherited.discard(name)
        return function

    def _free_name(self, function: Callable[..., Any]) -> str:
        name = name_of(function)
        if name == "<lambda>":
            return self._free_lambda_name()
        if name in RESERVED:
            _refuse_reserved(name, f"Task {name!r}")
        if name in self._values:
            raise ReservedNameError(f"Task {name!r}: the weave has an initial value of that name. Rename one of them.")
        if name in self._specs and name not in self._inherited:
            raise ReservedNameError(f"Task {name!r} is already declared in this weave. Rename one of them.")
        return name

    def _free_lambda_name(self) -> str:
        while True:
            self._lambdas += 1
            name = f"lambda_{self._lambdas}"
            if name not in self._specs and name not in self._values:
                return name

    def _inherit(self, parent: object) -> None:
        if not (isinstance(parent, type) and issubclass(parent, Weave)):
            raise TypeError(f"weave(parent): a subclass of wove.Weave is expected, not {parent!r}.")
        for spec in tasks_of(parent):
            _refuse_reserved(spec.name, f"Task {spec.name!r} of {parent.__name__}")
            if spec.name in self._values:
                raise ReservedNameError(
                    f"weave({spec.name}=...): {parent.__name__} has a task of that name. Rename one of them."
                )
            self._specs[spec.name] = spec
            self._inherited.add(spec.name)

    # --- reading ---

    @property
    def result(self) -> WoveResult:
        """The results of the tasks, once the block has ended."""
        return self._result

    @property
    def execution_plan(self) -> dict[str, Any]:
        """The graph: ``dependencies`` and ``dependents`` (name to set of names), ``tiers`` (list of lists),
        ``sorted_tasks``.

        Raises:
            UnresolvedSignatureError, CircularDependencyError: the tasks declared so far do not make a graph.
        """
        return Graph(self._specs.values(), self._values).plan()

    # --- running ---

    def __enter__(self) -> Self:
        self._over = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        if error is not None:
            return
        if self._options["background"]:
            self._start_background()
        elif self._specs:
            plan = self._plan()
            run_blocking(partial(execute, plan, self._result), plan.context, loop=plan.loop)
            self._leave()

    async def __aenter__(self) -> Self:
        self._over = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        if error is not None:
            return
        if self._options["background"]:
            self._start_background()
        elif self._specs:
            await run_here(partial(execute, self._plan(), self._result))
            self._leave()

    def _plan(self) -> Plan:
        specs = list(self._specs.values())
        return make_plan(specs, self._values, self._defaults, self._options, copy_context())

    def _leave(self) -> None:
        failure = self._result.exception if self._options["error_mode"] == "exit" else None
        if failure is not None:
            raise failure

    def _start_background(self) -> None:
        from wove.flow.background import Background, run_in_process, run_in_thread

        if not self._options["fork"]:
            run_in_thread(self._plan(), self._result)
            return
        self._plan()  # What is wrong with the graph is said here, not in a process that nobody watches.
        run_in_process(Background(list(self._specs.values()), self._values, self._task_options, self._options))


def _refuse_reserved(name: str, where: str) -> None:
    if name in RESERVED:
        what = "is the dict of all initial values" if name == "data" else "is an attribute of the result"
        raise ReservedNameError(f"{where}: the name {name!r} {what}. Choose another name.")


def _check_background(given: Mapping[str, object], *, background: bool) -> None:
    for name in ("fork", "on_done"):
        if given.get(name) and not background:
            raise OptionError(f"weave(): {name} has a meaning with background=True only.")
