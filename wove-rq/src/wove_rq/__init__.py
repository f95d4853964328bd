"""Wove's adapter for RQ: `RQAdapter` submits tasks, `wove_rq.worker` executes them."""

from wove_rq.adapter import RQAdapter

__version__ = "0.1.0"

__all__ = ["RQAdapter"]
