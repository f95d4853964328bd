"""A declared task: its name, callable, parameters, options and what it is mapped over."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple, cast

from wove.errors import OptionError
from wove.options import check_options

AnyCallable = Callable[..., Any]

_NO_OPTIONS: Mapping[str, object] = {}


class Unmapped:
    """The type of `UNMAPPED`, the source of a task that is not mapped; None is a value that a caller may pass by
    mistake.
    """

    def __reduce__(self) -> str:
        # Pickled by its name: it is told by identity, also in another process.
        return "UNMAPPED"


UNMAPPED: Final = Unmapped()


class Parameters(NamedTuple):
    """The parameters of a callable by which it can be called.

    Attributes:
        names: every parameter that takes one value, in order.
        required: those without a default.
        positional_only: those that cannot be passed by name.
        positional: how many of them, from the first on, can be passed by position.
    """

    names: tuple[str, ...]
    required: Collection[str]
    positional_only: tuple[str, ...]
    positional: int


class TaskSpec:
    """One declared task. Immutable once declared; an inline override makes a new one.

    Attributes:
        mapped: whether it runs once per item of `source`.
        source_name: the task or initial value whose result is mapped over, for ``@w.do("name")``.
        is_async: whether calling the function returns a coroutine.
    """

    __slots__ = ("function", "is_async", "mapped", "name", "options", "parameters", "source", "source_name")

    def __init__(
        self,
        name: str,
        function: AnyCallable,
        *,
        source: object = UNMAPPED,
        options: Mapping[str, object] = _NO_OPTIONS,
        parameters: Parameters | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self.source = source
        self.mapped = source is not UNMAPPED
        self.source_name = source if isinstance(source, str) else None
        self.options = options
        self.parameters = parameters or parameters_of(function)
        self.is_async = is_async_callable(function)

    def overriding(self, parent: "TaskSpec") -> "TaskSpec":
        """Return this task with the options, and the map source, that it leaves unset taken from its parent's task."""
        source = parent.source if self.source is UNMAPPED else self.source
        return TaskSpec(self.name, self.function, source=source, options={**parent.options, **self.options})


def declare(
    name: str,
    function: AnyCallable,
    source: object,
    options: Mapping[str, object],
    *,
    parent: "TaskSpec | None" = None,
    where: str | None = None,
) -> TaskSpec:
    """Make a task from what ``@w.do`` or ``@Weave.do`` was given.

    Args:
        name: the task's name.
        function, source, options: what was given.
        parent: the task that this one overrides; what is not given comes from there.
        where: the place, for messages; ``@w.do`` on this task if omitted.

    Raises:
        OptionError: an option is unknown, misplaced or has a bad value, or the map source is nothing to iterate over.
    """
    where = where or f"@w.do on task {name!r}"
    if options:
        mapped = source is not UNMAPPED or (parent is not None and parent.mapped)
        check_options(options, where=where, mapped=mapped)
    if source is not UNMAPPED and not isinstance(source, str) and not is_iterable(source):
        do = where.partition(" ")[0]
        raise OptionError(
            f"{where}: a task is mapped over an iterable or over the name of a task or initial value, "
            f"not over {type(source).__name__!r}. Write {do}([...]) or {do}('name')."
        )
    spec = TaskSpec(name, function, source=source, options=options or _NO_OPTIONS)
    return spec if parent is None else spec.overriding(parent)


def is_iterable(value: object) -> bool:
    return isinstance(value, Iterable) or hasattr(type(value), "__getitem__") or hasattr(type(value), "__aiter__")


def name_of(function: AnyCallable) -> str:
    """Return the name under which a callable becomes a task: that of the function below partials, or of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    name: str = getattr(function, "__name__", "") or type(function).__name__
    return name


def parameters_of(function: AnyCallable) -> Parameters:
    """Return the parameters of any callable.

    Raises:
        TypeError: the signature cannot be found out, as with some callables that are written in C.
    """
    # The code object answers in a fraction of the time that `inspect.signature` takes; decorated functions need the
    # latter.
    if type(function) is FunctionType and "__wrapped__" not in function.__dict__:
        return _parameters_of_code(function)
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise TypeError(
            f"The parameters of {name_of(function)!r} cannot be determined ({error}). Wrap it in a lambda or a def."
        ) from None
    single = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    # A keyword that a partial has bound shows up as a default, and nothing may override what was bound on purpose.
    bound = _bound_keywords(function)
    open_parameters = [p for p in single if p.name not in bound]
    return Parameters(
        tuple(p.name for p in open_parameters),
        frozenset(p.name for p in open_parameters if p.default is p.empty),
        tuple(p.name for p in open_parameters if p.kind is p.POSITIONAL_ONLY),
        sum(p.kind is not p.KEYWORD_ONLY for p in open_parameters),
    )


def _bound_keywords(function: object) -> set[str]:
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound.update(function.keywords)
        function = function.func
    return bound


def _parameters_of_code(function: FunctionType) -> Parameters:
    code = function.__code__
    positional, keyword_only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames[: positional + keyword_only]
    if not function.__defaults__ and not function.__kwdefaults__:
        return Parameters(names, names, names[: code.co_posonlyargcount], positional)
    optional = set(names[positional - len(function.__defaults__ or ()) : positional])
    optional.update(function.__kwdefaults__ or ())
    required = frozenset(name for name in names if name not in optional)
    return Parameters(names, required, names[: code.co_posonlyargcount], positional)


def is_async_callable(function: object) -> bool:
    """Tell whether calling something returns a coroutine: coroutine functions, partials and objects around them."""
    if type(function) is FunctionType:
        # A function may be marked as one that returns coroutines; the mark is among its attributes.
        marked = bool(function.__dict__) and inspect.iscoroutinefunction(function)
        return marked or bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, FunctionType | MethodType):
        return inspect.iscoroutinefunction(function)
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class PositionalCall:
    """Calls a function whose item parameter is positional-only, such as ``math.sqrt``, by that parameter's name."""

    __slots__ = ("function", "name")

    def __init__(self, function: AnyCallable, name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, **arguments: Any) -> Any:
        item = arguments.pop(self.name)
        return self.function(item, **arguments)


def callable_by_name(function: AnyCallable, item_parameter: str, parameters: Parameters) -> AnyCallable:
    """Return a callable that takes its item by name."""
    if item_parameter in parameters.positional_only:
        return cast(AnyCallable, PositionalCall(function, item_parameter))
    return function
