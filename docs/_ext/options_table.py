"""The directive `wove-options`: a table of the options, read from their one declaration in `wove.options`."""

from typing import ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wove.options import TASK_OPTIONS, WEAVE_OPTIONS

TABLES = {"task": TASK_OPTIONS, "weave": WEAVE_OPTIONS}


class OptionsTable(SphinxDirective):
    """`{wove-options} task` or `{wove-options} weave`."""

    required_arguments = 1
    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """Build the table's nodes."""
        kind = self.arguments[0]
        if kind not in TABLES:
            raise self.error(f"wove-options: no table {kind!r}; there are {', '.join(TABLES)}")
        lines = [".. list-table::", "   :header-rows: 1", ""]
        lines += ["   * - option", "     - default", "     - accepts", "     - meaning"]
        for name, option in TABLES[kind].items():
            lines += [f"   * - ``{name}``", f"     - ``{option.default!r}``"]
            lines += [f"     - {option.expected}", f"     - {option.doc}"]
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source="wove.options"), self.content_offset, holder)
        return list(holder.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("wove-options", OptionsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
