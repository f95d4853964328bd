"""Wove's adapter for ARQ: `ARQAdapter` submits tasks, `wove_arq.worker` executes them."""

from wove_arq.adapter import ARQAdapter

__version__ = "0.1.0"

__all__ = ["ARQAdapter"]
