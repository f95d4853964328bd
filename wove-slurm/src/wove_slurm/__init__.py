"""Wove's adapter for Slurm: `SlurmAdapter` submits each task as a job, or each map as a job array."""

from wove_slurm.adapter import SlurmAdapter

__version__ = "0.1.0"

__all__ = ["SlurmAdapter"]
