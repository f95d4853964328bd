"""Plugins: code that observes weaves, traces tasks, sets policies or vetoes a graph, without a line in the tasks.

A plugin is a module or an object whose functions are marked with `hookimpl` and named after a hook in
`wove.plugins.hookspecs`::

    from wove.plugins import hookimpl, register

    class Announcer:
        @hookimpl
        def wove_task_failed(self, task, exception):
            print(f"{task} failed: {exception!r}")

    register(Announcer())

An installed distribution offers one under the entry-point group ``wove.plugins``. pluggy and the entry points are
loaded when the first weave runs, not by ``import wove``.
"""

from typing import TYPE_CHECKING

from wove.lazy import lazy_names

if TYPE_CHECKING:
    from wove.plugins.hookspecs import hookimpl as hookimpl
    from wove.plugins.manager import active_hooks as active_hooks
    from wove.plugins.manager import register as register
    from wove.plugins.manager import rescan as rescan
    from wove.plugins.manager import unregister as unregister

_HOMES = {
    "active_hooks": "wove.plugins.manager",
    "hookimpl": "wove.plugins.hookspecs",
    "register": "wove.plugins.manager",
    "rescan": "wove.plugins.manager",
    "unregister": "wove.plugins.manager",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(globals(), _HOMES)
