"""The public door to `Weave` classes: ``from wove.weave import Weave``."""

from wove.flow.context import weave
from wove.flow.template import Weave

__all__ = ["Weave", "weave"]
