"""Wove's adapter for Ray: `RayAdapter` submits tasks, `wove_ray.remote` has what Ray's workers execute."""

from wove_ray.adapter import RayAdapter

__version__ = "0.1.0"

__all__ = ["RayAdapter"]
