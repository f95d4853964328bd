"""Wove's adapter for Temporal: `TemporalAdapter` submits tasks, a worker with `WovePlugin` executes them."""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove_temporal.adapter import TemporalAdapter as TemporalAdapter
    from wove_temporal.plugin import WovePlugin as WovePlugin

__version__ = "0.1.0"

# The plugin needs Temporal's SDK, which the adapter loads only when it is started.
_HOMES = {"TemporalAdapter": "wove_temporal.adapter", "WovePlugin": "wove_temporal.plugin"}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
