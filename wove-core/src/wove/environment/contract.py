"""The contract between a weave and every place where a task can run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class EnvironmentExecutor(ABC):
    """Carries command frames to a place where tasks run, and event frames back.

    Frames are plain dicts (`wove.backend.types`). All four methods are called on one event loop, that of the executor
    session; `send` may be called concurrently, `recv` is awaited by one reader at a time.
    """

    @abstractmethod
    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        """Initialize a session: connect, spawn, validate. No task is sent before it returns.

        Args:
            environment_name: the name under which the environment is configured.
            environment_config: the environment's ``executor_config``.
            run_config: the effective settings of the weave and the environment's definition.

        Raises:
            ConfigurationError: a configuration value is missing or wrong.
            MissingDispatchFeatureError: a package that the executor needs is not installed.
        """

    @abstractmethod
    async def send(self, frame: dict[str, Any]) -> None:
        """Send one command frame: ``run_task``, ``cancel_task`` or ``shutdown``. Returns when the frame has been handed
        over.

        Raises:
            RuntimeError: the session has not been started.
            ValueError: the command's type is unknown.
        """

    @abstractmethod
    async def recv(self) -> dict[str, Any]:
        """Return the next event frame; waits until there is one."""

    @abstractmethod
    async def stop(self) -> None:
        """End the session and release what it holds.

        Called once for each successful `start`; pending runs are given up.
        """
