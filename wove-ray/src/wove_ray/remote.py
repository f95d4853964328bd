"""What Ray's workers execute, and how Ray is told about it."""

import pickle
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ray

from wove.errors import ConfigurationError

# Ray knows no equal jobs: for so long, a host gives the result of an idempotency key to later tasks with it.
_ONCE_SECONDS = 3600.0
# Task names whose options are kept.
_MOST_NAMES = 64

_NAME = "wove"
# What belongs to a function instead of its calls. Ray ends the process after each call of a function with a GPU: so the
# next one finds its memory free.
_OF_FUNCTIONS = {"max_calls", "num_gpus"}


def _make_execute() -> Callable[..., bytes | None]:
    """Return the function that executes a payload.

    It is made in here so that Ray sends it by value: its workers need Wove's core, but not this distribution.
    """
    once_seconds = _ONCE_SECONDS

    def execute(body: bytes, *stored: bytes) -> bytes | None:
        import pickle

        from wove.integrations.worker import run

        payload, keys, returns = pickle.loads(body)
        if not keys:
            return run(payload, once_seconds=once_seconds, delivered_once=True, returns=returns)
        from wove.backend.apart import values_apart

        with values_apart(dict(zip(keys, stored, strict=True))):
            return run(payload, once_seconds=once_seconds, delivered_once=True, returns=returns)

    return execute


@cache
def _shared_function() -> Any:
    """Return the function of all environments: each further one would be one more that the cluster has to keep."""
    return ray.remote(max_retries=0)(_make_execute())


class RemoteRun:
    """Ray's remote function with the options of one environment. Ray exports it once for a session; any thread.

    Args:
        options: arguments of ``ray.remote``.

    Raises:
        ConfigurationError: Ray refuses an option; the message has its words.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._named: dict[str, Any] = {}
        try:
            if options.keys() & _OF_FUNCTIONS:
                self._function: Any = ray.remote(max_retries=0, **options)(_make_execute())
                self._options = {key: value for key, value in options.items() if key == "name"}
            else:
                self._function = _shared_function()
                self._options = dict(options)
            self._called(_NAME)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"remote_options: Ray refuses them: {error}") from error

    def submit(self, payload: Mapping[str, Any], stored: Mapping[str, Any], *, returns: int) -> Any:
        """Submit a payload, and return Ray's reference to its end.

        Args:
            payload: the payload.
            stored: Ray's references to arguments that travel apart from it, by their keys.
            returns: bytes up to which the outcome is to be the task's value, instead of being posted.
        """
        # Bytes are what Ray carries fastest: they are neither looked at nor pickled again.
        body = pickle.dumps((payload, list(stored), returns), protocol=pickle.HIGHEST_PROTOCOL)
        name = f"{_NAME}: {payload.get('task_name') or payload.get('task_id')}"
        return self._called(name).remote(body, *stored.values())

    def _called(self, name: str) -> Any:
        named = self._named.get(name)
        if named is None:
            if len(self._named) >= _MOST_NAMES:
                self._named.clear()
            named = self._named[name] = self._function.options(**{"name": name, **self._options})
        return named
