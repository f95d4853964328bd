"""A small job queue in one SQLite file. It knows nothing of Wove; only `acme_queue.wove_adapter` does."""

from acme_queue.client import Client, Job, QueueUnavailable, create

__all__ = ["Client", "Job", "QueueUnavailable", "create"]
