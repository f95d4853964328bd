"""Inline task orchestration with pluggable execution."""

__version__ = "0.1.0"
