"""Every option of a task and of a weave, declared once.

`TaskOptions` and `WeaveOptions` are the declarations: ``@w.do``, ``merge``, ``weave``, ``wove.config``, environment
definitions and the table in the documentation all derive from them. An option's `Option` says what values it takes and
what it does.
"""

from collections.abc import Callable, Mapping
from sys import float_info
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast

from wove.errors import OptionError, did_you_mean

CancelMode = Literal["best_effort", "require_ack"]
OrphanPolicy = Literal["fail", "cancel", "requeue", "detach"]
ErrorMode = Literal["raise", "return", "exit"]


class Option(NamedTuple):
    """What one option accepts and means.

    Attributes:
        expected: the accepted values, in words, for error messages and the documentation.
        accepts: tells whether a value is one of them.
        default: the built-in default.
        doc: one sentence for the documentation.
        mapped_only: the option has a meaning on mapped tasks only.
    """

    expected: str
    accepts: Callable[[object], bool]
    default: object
    doc: str
    mapped_only: bool = False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive_count(value: object) -> bool:
    return _is_count(value) and value != 0


def _is_positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _one_of(*choices: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in choices


def _or_none(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or accepts(value)


_SECONDS = "a positive, finite number of seconds, or None"
_COUNT_OR_NONE = "a whole number of at least 1, or None"
_seconds = _or_none(_is_positive_number)
_count_or_none = _or_none(_is_positive_count)


class TaskOptions(TypedDict, total=False):
    """The options of one task: keywords of ``@w.do``, ``merge``, ``weave``, ``wove.config`` and environment
    definitions.
    """

    retries: Annotated[
        int, Option("a whole number of at least 0", _is_count, 0, "How many more attempts follow a failed one.")
    ]
    timeout: Annotated[float | None, Option(_SECONDS, _seconds, None, "Seconds that one attempt may take.")]
    workers: Annotated[
        int | None,
        Option(
            _COUNT_OR_NONE,
            _count_or_none,
            None,
            "How many items of a mapped task run at once.",
            mapped_only=True,
        ),
    ]
    limit_per_minute: Annotated[
        float | None,
        Option(
            "a positive, finite number, or None",
            _seconds,
            None,
            "How many items of a mapped task start per minute, evenly spaced.",
            mapped_only=True,
        ),
    ]
    environment: Annotated[
        str | None,
        Option("the name of an environment, or None", _or_none(_is_text), None, "The environment that runs the task."),
    ]
    delivery_timeout: Annotated[
        float | None,
        Option(_SECONDS, _seconds, None, "Seconds from submitting a remote task to its end, queueing included."),
    ]
    delivery_idempotency_key: Annotated[
        str | Callable[..., str] | None,
        Option(
            "a string, a format string over the task's arguments, a callable that returns a string, or None",
            _or_none(lambda value: _is_text(value) or callable(value)),
            None,
            "Makes equal submissions run once; the backend's job id where the backend removes duplicates.",
        ),
    ]
    delivery_cancel_mode: Annotated[
        CancelMode,
        Option(
            "'best_effort' or 'require_ack'",
            _one_of("best_effort", "require_ack"),
            "best_effort",
            "Whether cancelling waits until the worker or backend confirms it.",
        ),
    ]
    delivery_heartbeat_seconds: Annotated[
        float | None,
        Option(_SECONDS, _seconds, None, "Seconds without a sign of life after which a started remote task is lost."),
    ]
    delivery_max_in_flight: Annotated[
        int | None,
        Option(_COUNT_OR_NONE, _count_or_none, None, "How many runs of the environment may be submitted at a time."),
    ]
    delivery_orphan_policy: Annotated[
        OrphanPolicy,
        Option(
            "'fail', 'cancel', 'requeue' or 'detach'",
            _one_of("fail", "cancel", "requeue", "detach"),
            "cancel",
            "What happens to a remote run whose weave gives it up or whose job is lost.",
        ),
    ]


class WeaveOptions(TypedDict, total=False):
    """The options of a whole weave: keywords of ``weave``, ``wove.config`` and environment definitions."""

    debug: Annotated[bool, Option("True or False", _is_flag, False, "Print the execution plan before the weave runs.")]
    max_workers: Annotated[
        int,
        Option("a whole number of at least 1", _is_positive_count, 256, "The most threads for synchronous tasks."),
    ]
    background: Annotated[
        bool, Option("True or False", _is_flag, False, "Run the weave in a thread and go on at once.")
    ]
    fork: Annotated[
        bool, Option("True or False", _is_flag, False, "With background: run the weave in a detached process.")
    ]
    on_done: Annotated[
        Callable[[Any], Any] | None,
        Option(
            "a callable of one argument, or None",
            _or_none(callable),
            None,
            "Called with a background weave's result.",
        ),
    ]
    max_pending: Annotated[
        int | None, Option(_COUNT_OR_NONE, _count_or_none, None, "The most items that a mapped task may have.")
    ]
    error_mode: Annotated[
        ErrorMode,
        Option(
            "'raise', 'return' or 'exit'",
            _one_of("raise", "return", "exit"),
            "raise",
            "Whether reading a failed result raises, returns the exception, or the block itself raises.",
        ),
    ]


def _declared(declaration: Any) -> dict[str, Option]:
    return {name: annotation.__metadata__[0] for name, annotation in declaration.__annotations__.items()}


TASK_OPTIONS: Mapping[str, Option] = _declared(TaskOptions)
WEAVE_OPTIONS: Mapping[str, Option] = _declared(WeaveOptions)
TASK_DEFAULTS = cast(TaskOptions, {name: option.default for name, option in TASK_OPTIONS.items()})
WEAVE_DEFAULTS = cast(WeaveOptions, {name: option.default for name, option in WEAVE_OPTIONS.items()})

# The policy fields that a `run_task` frame carries; `delivery_max_in_flight` concerns the submitting side alone.
DELIVERY_FIELDS = (
    "delivery_timeout",
    "delivery_idempotency_key",
    "delivery_cancel_mode",
    "delivery_heartbeat_seconds",
    "delivery_orphan_policy",
)


def check_options(
    given: Mapping[str, object], *, where: str, known: Mapping[str, Option] = TASK_OPTIONS, mapped: bool | None = None
) -> None:
    """Raise for the first option that is unknown, misplaced or has a value that it does not accept.

    Args:
        given: option names and values.
        where: the place, for the message: ``"@w.do on task 'report'"``, ``"Environment 'reports'"``.
        known: the options that the place takes.
        mapped: False refuses the options of mapped tasks; None leaves that open.

    Raises:
        OptionError: names the option, the place and, for a misspelled one, the nearest right name.
    """
    for name, value in given.items():
        option = known.get(name)
        if option is None and name in WEAVE_OPTIONS:
            raise OptionError(f"{where}: {name} is an option of a whole weave: weave({name}=...).")
        if option is None:
            raise OptionError(
                f"{where}: no option named {name!r}.{did_you_mean(name, known)} Options: {', '.join(sorted(known))}."
            )
        if not option.accepts(value):
            raise OptionError(f"{where}: {name} must be {option.expected}, not {value!r}.")
        if mapped is False and option.mapped_only and value is not None:
            raise OptionError(
                f"{where}: {name} has a meaning on mapped tasks only. "
                f"Map the task with @w.do(iterable) or remove {name}."
            )


def resolve_options(*layers: Mapping[str, object]) -> TaskOptions:
    """Return a complete set of task options from layers, the closest to the task first; unset ones take the default."""
    effective = dict(TASK_DEFAULTS)
    for layer in reversed(layers):
        if layer:
            effective.update((name, value) for name, value in layer.items() if name in TASK_OPTIONS)
    return cast(TaskOptions, effective)
