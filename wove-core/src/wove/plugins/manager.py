"""Which plugins take part: the built-in ones, those of installed distributions, and those that were registered."""

import inspect
import logging
import threading
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from wove.errors import AdapterError, did_you_mean
from wove.plugins import discovery

if TYPE_CHECKING:
    from pluggy import HookImpl, PluginManager

    from wove.plugins.discovery import Offer
    from wove.plugins.hooks import ActiveHooks

GROUP = "wove.plugins"
# This plugin listens to every weave but speaks for those with `debug=True` only: without it, others cost nothing.
DEBUG = "debug"
_DOCUMENTED = "The hooks and what each is given: wove.plugins.hookspecs."

logger = logging.getLogger("wove.plugins")


class PluginRegistry:
    """The plugins of this process. Any thread may call it, also while a plugin is being imported.

    No lock is held while a plugin's code is imported or run.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._importing = threading.local()
        self._installed: list[str] = []
        self._loaded = False
        self._made: PluginManager | None = None
        # Read without the lock, and None when the set of plugins has changed.
        self.hooks: ActiveHooks | None = None
        self.debugging_hooks: ActiveHooks | None = None

    @property
    def _manager(self) -> "PluginManager":
        if self._made is None:
            import pluggy

            from wove.plugins import debug, hookspecs, timings

            self._made = pluggy.PluginManager(hookspecs.PROJECT)
            self._made.add_hookspecs(hookspecs)
            self._made.register(timings, timings.NAME)
            self._made.register(debug, DEBUG)
        return self._made

    def activate(self, *, debug: bool) -> "ActiveHooks":
        """Return the hooks of the plugins that there are, having loaded the installed ones, and remember them."""
        from wove.plugins.hooks import ActiveHooks

        self._load_installed()
        with self._lock:
            everyone = ActiveHooks(self._implementations)
            plain = ActiveHooks(partial(self._implementations, without=DEBUG))
            if self._loaded:
                self.hooks, self.debugging_hooks = plain, everyone
            return everyone if debug else plain

    def _implementations(self, hook: str, *, without: str | None = None) -> "Sequence[HookImpl]":
        """A hook's implementations in the order of their calls; pluggy keeps them the other way round."""
        found: list[HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        return [implementation for implementation in reversed(found) if implementation.plugin_name != without]

    def _load_installed(self) -> None:
        # A plugin that runs a weave or registers another one while it is imported gets what there is so far.
        if self._loaded or getattr(self._importing, "active", False):
            return
        self._importing.active = True
        try:
            found = [(offer, _load(offer)) for offer in discovery.offers(GROUP)]
        finally:
            self._importing.active = False
        self._take_up(found)

    def _take_up(self, found: "Sequence[tuple[Offer, object]]") -> None:
        """Register what was loaded, unless another thread was faster."""
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            for offer, plugin in found:
                if plugin is None:
                    continue
                try:
                    self._installed.append(self.register(plugin, offer.name))
                except AdapterError as error:
                    _log_left_out(offer, error)

    def register(self, plugin: object, name: str | None = None) -> str:
        with self._lock:
            name = name or self._free_name(plugin)
            if isinstance(plugin, type):
                raise AdapterError(f"Plugin {name!r}: register an instance of {plugin.__qualname__}, not the class.")
            self._check_new(plugin, name)
            try:
                self._manager.register(plugin, name)
                _check_implementations(self._manager, plugin, name)
            except Exception as error:
                # pluggy 1.5 keeps the hooks that it took up before it found the faulty one.
                if self._manager.get_plugin(name) is plugin:
                    self._manager.unregister(plugin, name)
                if isinstance(error, AdapterError):
                    raise
                raise AdapterError(f"Plugin {name!r} cannot be used: {error}. {_DOCUMENTED}") from error
            self.hooks = self.debugging_hooks = None
            return name

    def _check_new(self, plugin: object, name: str) -> None:
        known = self._manager.get_name(plugin)
        if known is not None:
            raise AdapterError(f"Plugin {known!r} is already registered. Unregister it first to give it another name.")
        if self._manager.has_plugin(name):
            raise AdapterError(
                f"Plugin name {name!r} is taken by {self._manager.get_plugin(name)!r}. Choose another name, or call "
                f"wove.plugins.unregister({name!r}) first."
            )

    def _free_name(self, plugin: object) -> str:
        if isinstance(plugin, ModuleType):
            return plugin.__name__
        kind = type(plugin)
        base = name = f"{kind.__module__}.{kind.__qualname__}"
        number = 1
        while self._manager.has_plugin(name):
            number += 1
            name = f"{base}-{number}"
        return name

    def unregister(self, plugin: object) -> None:
        self._load_installed()
        with self._lock:
            name = plugin if isinstance(plugin, str) else self._manager.get_name(plugin)
            if name is None or not self._manager.has_plugin(name):
                known = sorted(name for name, _ in self._manager.list_name_plugin())
                hint = did_you_mean(name, known) if name else ""
                raise AdapterError(f"No plugin {plugin!r} is registered.{hint} Registered: {', '.join(known)}.")
            self._manager.unregister(name=name)
            self._installed = [installed for installed in self._installed if installed != name]
            self.hooks = self.debugging_hooks = None

    def forget_installed(self) -> None:
        with self._lock:
            for name in self._installed:
                self._manager.unregister(name=name)
            self._installed = []
            self._loaded = False
            self.hooks = self.debugging_hooks = None


def _load(offer: "Offer") -> object:
    """Import a plugin; a class is instantiated. None if that fails, which is logged."""
    try:
        plugin = offer.entry_point.load()
        return plugin() if isinstance(plugin, type) else plugin
    # A module that calls sys.exit() must not end somebody else's program.
    except (Exception, SystemExit) as error:
        _log_left_out(offer, error)
        return None


def _log_left_out(offer: "Offer", error: BaseException) -> None:
    logger.error(
        "Plugin %r of distribution %s cannot be used and is left out: %s: %s. Upgrade or uninstall %s.",
        offer.name,
        offer,
        type(error).__name__,
        error,
        offer.distribution,
        exc_info=error,
    )


def _check_implementations(manager: "PluginManager", plugin: object, name: str) -> None:
    """Raise for what pluggy accepts and Wove could not call."""
    hooks = manager.get_hookcallers(plugin) or []
    if not hooks:
        raise AdapterError(
            f"Plugin {name!r} implements no hook: mark its functions with wove.plugins.hookimpl. {_DOCUMENTED}"
        )
    known = [hook for hook, caller in vars(manager.hook).items() if caller.has_spec()]
    for hook in hooks:
        for implementation in hook.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            where = f"Plugin {name!r}: {hook.name}"
            if hook.name not in known and not implementation.optionalhook:
                raise AdapterError(f"{where} is no hook.{did_you_mean(hook.name, known)} {_DOCUMENTED}")
            _check_callable(implementation, where)


def _check_callable(implementation: "HookImpl", where: str) -> None:
    function = implementation.function
    if implementation.wrapper or implementation.hookwrapper:
        raise AdapterError(f"{where} is a hook wrapper; Wove's hooks take plain implementations only.")
    if inspect.iscoroutinefunction(function):
        raise AdapterError(f"{where} is an async function; write a plain one, or a manager in wove_around_task.")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise AdapterError(f"{where} is a generator; decorate it with contextlib.asynccontextmanager.")


_registry = PluginRegistry()


def active_hooks(*, debug: bool = False) -> "ActiveHooks":
    """Return the hooks that some plugin implements; the same object until the set of plugins changes.

    The first call loads pluggy and the installed plugins. One that cannot be loaded is logged with its distribution's
    name, and the others take part.

    Args:
        debug: whether the plugin takes part that prints the plan; for weaves with the option ``debug``.
    """
    hooks = _registry.debugging_hooks if debug else _registry.hooks
    return hooks if hooks is not None else _registry.activate(debug=debug)


def are_loaded() -> bool:
    """Tell whether `active_hooks` has nothing to load any more."""
    return _registry.hooks is not None


def register(plugin: object, name: str | None = None) -> str:
    """Let a plugin take part in the weaves that start from now on.

    Args:
        plugin: a module or an object with functions marked by `hookimpl`.
        name: the name for logs and errors; by default the module's, or that of the object's class.

    Returns:
        The plugin's name.

    Raises:
        AdapterError: the plugin implements no hook, one that does not exist or one with an unknown parameter; the name
            is taken; or it is registered already.
    """
    return _registry.register(plugin, name)


def unregister(plugin: object) -> None:
    """Remove a plugin, be it registered, installed or built in; running weaves keep it to their end.

    Args:
        plugin: the plugin or its name.

    Raises:
        AdapterError: there is none; the message lists the names of those there are.
    """
    _registry.unregister(plugin)


def rescan() -> None:
    """Look again for installed adapters and plugins, after something was installed or removed while Python runs.

    Registered plugins stay. Modules that are imported already are not imported anew.
    """
    discovery.forget()
    _registry.forget_installed()
