"""Wove's adapter for AWS Batch: `AWSBatchAdapter` submits tasks, `wove.backend_worker` executes them in their jobs."""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove_batch.adapter import AWSBatchAdapter as AWSBatchAdapter

__version__ = "0.1.0"

_HOMES = {"AWSBatchAdapter": "wove_batch.adapter"}

# A job imports `wove_batch.worker`, and should not pay for the adapter.
__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
