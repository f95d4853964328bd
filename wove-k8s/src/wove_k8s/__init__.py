"""Wove's adapter for Kubernetes: `KubernetesJobsAdapter` runs each task as a Job of its own."""

from wove_k8s.adapter import KubernetesJobsAdapter

__version__ = "0.1.0"

__all__ = ["KubernetesJobsAdapter"]
