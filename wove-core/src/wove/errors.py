"""Every exception that Wove raises, in one tree.

Each class keeps the builtin base that users already catch (``NameError``, ``ValueError``, ``RuntimeError``,
``TimeoutError``), stores what it knows as attributes, and survives pickling.

::

    WoveError
    ├── ConfigurationError (ValueError)         wove.config, wove_config.py, environment definitions
    │   ├── OptionError (TypeError)             a misspelled, misplaced or mistyped option
    │   ├── UnknownEnvironmentError (NameError)
    │   ├── UnknownExecutorError
    │   └── AdapterError                        a plugin that cannot be used
    ├── MissingDispatchFeatureError (RuntimeError)
    ├── ReservedNameError (NameError)
    ├── UnresolvedSignatureError (NameError)
    ├── CircularDependencyError (ValueError)
    ├── GraphRejectedError (RuntimeError)       a plugin's veto
    ├── TaskTimeoutError (TimeoutError)
    ├── TaskCancelledError (RuntimeError)
    ├── SerializationError (TypeError)          something cannot travel
    ├── PayloadTooLargeError (ValueError)
    ├── SignatureError (PermissionError)        an event or payload that nobody trusted has signed
    ├── RemoteTraceback                         the cause of an exception that was raised in another process
    ├── EnvironmentExecutionError (RuntimeError)
    └── DeliveryError (RuntimeError)
        ├── DeliveryTimeoutError
        ├── DeliveryOrphanedError
        ├── EventRefusedError                   the receiver answered an event with an error
        └── DeliveryGivenUpError                a worker could not hand over an outcome

    TaskStopped (BaseException)                 stops a synchronous task from outside
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelled one most likely means, or None."""
    # Imported here because it costs milliseconds and only a mistake needs it.
    from difflib import get_close_matches

    nearest = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return nearest[0] if nearest else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string."""
    nearest = nearest_name(name, known)
    return f" Did you mean {nearest!r}?" if nearest else ""


class WoveError(Exception):
    """Base of every exception that Wove itself raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default reduction calls the class with `args`, which breaks every subclass with a richer constructor.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[WoveError], args: tuple[Any, ...], state: dict[str, Any]) -> WoveError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(WoveError, ValueError):
    """A configuration value is missing, misspelled or has the wrong type.

    The message names the key and where it stands.
    """


class OptionError(ConfigurationError, TypeError):
    """An option is misspelled, stands where it has no meaning, or has a value of the wrong type."""


class UnknownEnvironmentError(ConfigurationError, NameError):
    """A task or weave names an environment that no configuration defines.

    Attributes:
        environment: the unknown name.
        known: the names that are defined.
    """

    def __init__(self, environment: str, known: Iterable[str] = (), *, where: str | None = None) -> None:
        self.environment = environment
        self.known = tuple(sorted(known))
        place = f"{where}: " if where else ""
        listing = ", ".join(map(repr, self.known)) or "none"
        super().__init__(
            f"{place}no environment named {environment!r}.{did_you_mean(environment, self.known)} "
            f"Known environments: {listing}. Define it with wove.config(environments={{...}})."
        )


class UnknownExecutorError(ConfigurationError):
    """An environment names an executor that is neither built in nor installed."""


class AdapterError(ConfigurationError):
    """An installed adapter or plugin cannot be used: it is broken, claimed twice, or made for another contract
    version.
    """


class MissingDispatchFeatureError(WoveError, RuntimeError):
    """A feature that carries work across a process or network boundary lacks a package.

    Attributes:
        reason: the feature that needs it.
        install: the pip command that provides it.
    """

    def __init__(self, reason: str = "This feature", *, install: str = 'pip install "wove[dispatch]"') -> None:
        self.reason = reason
        self.install = install
        super().__init__(f"{reason} needs a package that is not installed. Install it with: {install}")


class ReservedNameError(WoveError, NameError):
    """A task or initial value bears a name that a result attribute or another value of the weave already has."""


class UnresolvedSignatureError(WoveError, NameError):
    """A parameter of a task is neither a task, nor an initial value, nor has it a default.

    Attributes:
        task: the task's name.
        parameter: the parameter that nothing provides.
    """

    def __init__(self, message: str, *, task: str | None = None, parameter: str | None = None) -> None:
        self.task = task
        self.parameter = parameter
        super().__init__(message)


class CircularDependencyError(WoveError, ValueError):
    """Tasks wait for each other.

    Attributes:
        cycle: the names along the cycle; the first is repeated at the end.
    """

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(
            f"Circular dependency: {' -> '.join(self.cycle)} (each task needs the next). "
            "Break it by renaming a parameter or merging two of the tasks."
            if len(self.cycle) > 2
            else f"Circular dependency: {' -> '.join(self.cycle)} (the task needs its own result). "
            "Rename the task, or what it takes."
        )


class GraphRejectedError(WoveError, RuntimeError):
    """A plugin's veto stopped a weave before any task ran.

    Attributes:
        plugin: the plugin's name.
        reason: why, in the plugin's words.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        self.plugin = plugin
        self.reason = reason
        super().__init__(f"Plugin {plugin!r} rejected the weave before any task ran: {reason}")


class TaskTimeoutError(WoveError, TimeoutError):
    """An attempt at a task took longer than its ``timeout``.

    Attributes:
        task: the task's name.
        timeout: seconds.
    """

    def __init__(self, task: str, timeout: float) -> None:
        self.task = task
        self.timeout = timeout
        super().__init__(f"Task {task!r} did not finish within its timeout of {timeout:g} s.")


class TaskCancelledError(WoveError, RuntimeError):
    """A task has no result because it was cancelled; where another task's failure was the reason, it is the cause.

    Attributes:
        task: the cancelled task.
        failed_task: the task whose failure cancelled it, or None.
    """

    def __init__(self, task: str, *, failed_task: str | None = None, reason: str | None = None) -> None:
        self.task = task
        self.failed_task = failed_task
        why = reason or (f"because task {failed_task!r} failed" if failed_task else "before it finished")
        super().__init__(f"Task {task!r} was cancelled {why}.")


class SerializationError(WoveError, TypeError):
    """A callable, argument, result or exception cannot travel. The message names the part that cannot, and why."""


class PayloadTooLargeError(WoveError, ValueError):
    """A payload, result or event is larger than its limit.

    Attributes:
        size: bytes, or None where it was not known.
        limit: bytes, or None where the other side did not tell.
    """

    def __init__(self, what: str, *, size: int | None, limit: int | None, advice: str = "") -> None:
        self.size = size
        self.limit = limit
        measured = f"{size:,} bytes" if size is not None else "larger than allowed"
        allowed = f"the limit is {limit:,} bytes" if limit is not None else "that is more than the other side takes"
        super().__init__(f"{what} is {measured}; {allowed}.{' ' + advice if advice else ''}")


class SignatureError(WoveError, PermissionError):
    """An event or payload carries no signature, a malformed one, or one that the expected key did not make."""


class RemoteTraceback(WoveError):
    """Shows, as the ``__cause__`` of an exception, the traceback that it had in the process which raised it.

    Attributes:
        text: the formatted traceback.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class TaskStopped(BaseException):
    """Raised inside a running synchronous task when its weave no longer wants it, or its worker is told to stop.

    Like `KeyboardInterrupt`, it is no `Exception`: ``except Exception`` lets it pass, ``finally`` blocks run.
    """


class EnvironmentExecutionError(WoveError, RuntimeError):
    """An executor reported a failure that could not be raised as the original exception.

    Attributes:
        payload: the normalized error: ``kind``, ``message``, ``traceback``, ``retryable``, ``source``.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = dict(payload)
        kind = self.payload.get("kind") or "Error"
        message = self.payload.get("message") or "no message"
        super().__init__(f"{kind}: {message}")


class DeliveryError(WoveError, RuntimeError):
    """A task left the process and its outcome did not come back.

    Attributes:
        state: what the backend last said of the job (``finished``, ``failed``, ``gone`` …), or None.
        exit_code: the job's exit code where the backend knows it.
        reason: the backend's own words, or None.
    """

    def __init__(
        self, message: str = "", *, state: str | None = None, exit_code: int | None = None, reason: str | None = None
    ) -> None:
        self.state = state
        self.exit_code = exit_code
        self.reason = reason
        super().__init__(message)


class DeliveryTimeoutError(DeliveryError):
    """A remote task did not complete within ``delivery_timeout``, or its heartbeats stopped."""


class DeliveryOrphanedError(DeliveryError):
    """A remote task lost its owner or its job: the backend says that it is over and no final event came."""


class EventRefusedError(DeliveryError):
    """The receiver of a worker's event answered with something else than success.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class DeliveryGivenUpError(DeliveryError):
    """A worker could not hand the outcome of a run to its weave, for good or for longer than it may try.

    The outcome is kept on the worker's host: where the backend delivers the same job again, it is handed over without
    executing the task again.
    """
