"""The public door to results: ``from wove.result import WoveResult``."""

from wove.flow.result import WoveResult

__all__ = ["WoveResult"]
