"""Wove's adapter for Taskiq: `TaskiqAdapter` submits tasks, `wove_taskiq.worker` executes them."""

from wove_taskiq.adapter import TaskiqAdapter

__version__ = "0.1.0"

__all__ = ["TaskiqAdapter"]
