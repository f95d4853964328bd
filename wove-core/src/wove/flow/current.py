"""Which weave the running code belongs to."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wove.flow.engine import Engine

current_engine: "ContextVar[Engine]" = ContextVar("wove_current_engine")
