"""`Weave` classes: tasks declared once, as methods, and run by ``weave(TheClass)``."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, Unpack, overload

from wove.flow.tasks import UNMAPPED, TaskSpec, declare, is_iterable, name_of, parameters_of
from wove.options import TaskOptions, check_options

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_wove_declaration"
_WRAPPERS = (staticmethod, classmethod)


class Declaration(NamedTuple):
    """What ``@Weave.do`` was given for one method."""

    source: object
    options: Mapping[str, object]


class Weave:
    """Base of classes whose methods are the tasks of a weave.

    ::

        class Report(Weave):
            @Weave.do(retries=2)
            def account(self, account_id):
                return load_account(account_id)

        with weave(Report, account_id="acct_1") as w:

            @w.do
            def summary(account):
                return account["name"]

    Subclasses inherit and override tasks. A task that is declared in the block under the name of a method overrides it,
    and takes the options that it leaves unset from the method. Only ``weave()`` makes instances, one for each weave; it
    calls ``__init__`` without arguments.
    """

    def __new__(cls, *args: object, **kwargs: object) -> "Weave":
        raise TypeError(f"{cls.__name__} is run by weave({cls.__name__}), not instantiated.")

    def __reduce__(self) -> tuple[Any, ...]:
        # A task that leaves the process takes its instance along, and `__new__` refuses to make one.
        return _instance, (type(self),), vars(self)

    @overload
    @staticmethod
    def do(function: F, /) -> F: ...
    @overload
    @staticmethod
    def do(source: object = ..., /, **options: Unpack[TaskOptions]) -> Callable[[F], F]: ...
    @staticmethod
    def do(source: Any = UNMAPPED, /, **options: Unpack[TaskOptions]) -> Any:
        """Declare a method as a task; takes what ``@w.do`` takes.

        Raises:
            OptionError: an option is misspelled or has a bad value.
        """
        if isinstance(source, _WRAPPERS) or (callable(source) and not is_iterable(source)):
            return _declared(source, source=UNMAPPED, options=options)
        return partial(_declared, source=source, options=options)


def _declared(function: F, *, source: object, options: Mapping[str, object]) -> F:
    if options:
        # Whether it is mapped, a subclass cannot know: it takes the source of the task that it overrides.
        check_options(options, where=_place(name_of(function)))
    setattr(function, _MARK, Declaration(source, dict(options)))
    return function


def _place(name: str, template: type | None = None) -> str:
    return f"@Weave.do on task {name!r}{'' if template is None else f' of {template.__name__}'}"


def _declaration_of(function: object) -> Declaration | None:
    declaration: Declaration | None = getattr(function, _MARK, None)
    if declaration is None and isinstance(function, _WRAPPERS):
        # Here `@staticmethod` stands above `@Weave.do`.
        declaration = getattr(function.__func__, _MARK, None)
    return declaration


def _is_method(value: object) -> bool:
    return callable(value) or isinstance(value, _WRAPPERS)


def _instance(template: type[Weave]) -> Weave:
    return object.__new__(template)


def _initialized(template: type[Weave]) -> Weave:
    instance = _instance(template)
    if template.__init__ is not object.__init__:
        required = parameters_of(instance.__init__).required  # type: ignore[misc]
        if required:
            raise TypeError(
                f"weave({template.__name__}): nobody can pass {', '.join(sorted(required))} to its __init__. "
                "Give these parameters defaults, or let the tasks take them as initial values."
            )
        instance.__init__()  # type: ignore[misc]
    return instance


def tasks_of(template: type[Weave]) -> list[TaskSpec]:
    """Make an instance of a `Weave` class and return its tasks, inherited ones first, in the order of definition.

    A subclass may override a task by a plain method; it stays a task with the options of the one it overrides.

    Raises:
        OptionError: a task's option is misplaced, or what it is mapped over is nothing to iterate over.
        TypeError: ``__init__`` needs arguments.
    """
    instance = _initialized(template)
    specs: dict[str, TaskSpec] = {}
    for cls in reversed(template.__mro__):
        for name, function in vars(cls).items():
            declaration = _declaration_of(function)
            if declaration is None and not (name in specs and _is_method(function)):
                continue
            source, options = declaration or (UNMAPPED, {})
            method = function.__get__(instance, template)
            place = _place(name, cls)
            specs[name] = declare(name, method, source, options, parent=specs.get(name), where=place)
    return list(specs.values())
