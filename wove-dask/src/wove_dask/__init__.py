"""Wove's adapter for Dask: `DaskAdapter` submits tasks, `wove_dask.worker` executes them."""

from wove_dask.adapter import DaskAdapter

__version__ = "0.1.0"

__all__ = ["DaskAdapter"]
