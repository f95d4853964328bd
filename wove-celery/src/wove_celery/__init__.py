"""Wove's adapter for Celery: `CeleryAdapter` submits tasks, `wove_celery.worker` executes them."""

from wove_celery.adapter import CeleryAdapter

__version__ = "0.1.0"

__all__ = ["CeleryAdapter"]
