"""Which plugins take part: built in, installed, registered."""

import logging
import subprocess
import sys
import threading
from types import ModuleType

import pytest

from tests.support.distributions import Site
from tests.unit.plugins.conftest import Registering
from wove.errors import AdapterError
from wove.plugins import active_hooks, hookimpl, register, rescan, unregister

HOOKS = [name for name in vars(active_hooks()) if name.startswith("wove_")]

RECORDER = """
    from wove.plugins import hookimpl

    heard = []

    @hookimpl
    def wove_task_ready(task):
        heard.append(task)
"""

LAZY = """
import sys
import wove, wove.plugins
from wove.plugins import active_hooks, register
assert "pluggy" not in sys.modules and "importlib_metadata" not in sys.modules
active_hooks()
assert "pluggy" in sys.modules and "importlib_metadata" in sys.modules
"""


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def wove_task_ready(self, task: str) -> None:
        self.heard.append(task)


def _tell(task: str) -> None:
    hook = active_hooks().wove_task_ready
    assert hook is not None
    hook(weave="w1", task=task)


def _heard_by(module: str) -> object:
    return sys.modules[module].__dict__["heard"]


@pytest.mark.usefixtures("site")
def test_a_hook_that_no_plugin_implements_is_none() -> None:
    hooks = active_hooks()
    assert {name for name in HOOKS if getattr(hooks, name) is not None} == {"wove_weave_finished"}


@pytest.mark.usefixtures("site")
def test_only_a_weave_that_is_debugged_has_a_listener_for_its_plan() -> None:
    assert active_hooks().wove_weave_planned is None
    assert active_hooks(debug=True).wove_weave_planned is not None


@pytest.mark.usefixtures("site")
def test_the_same_hooks_are_given_until_the_plugins_change(take: Registering) -> None:
    before = active_hooks()
    assert active_hooks() is before
    assert active_hooks(debug=True) is active_hooks(debug=True)
    take(Listener())
    assert active_hooks() is not before


def test_a_registered_plugin_hears_until_it_is_unregistered(site: Site) -> None:
    listener = Listener()
    register(listener)
    _tell("first")
    unregister(listener)
    assert active_hooks().wove_task_ready is None
    assert listener.heard == ["first"]


def test_hooks_that_a_weave_holds_outlive_an_unregistered_plugin(site: Site) -> None:
    listener = Listener()
    register(listener)
    held = active_hooks().wove_task_ready
    unregister(listener)
    assert held is not None
    held(weave="w1", task="late")
    assert listener.heard == ["late"]


def test_a_plugin_is_named_after_its_class_or_module_and_each_object_differently(take: Registering) -> None:
    module = ModuleType("acme_plugin")
    module.__dict__["wove_task_ready"] = hookimpl(lambda task: None)
    assert take(Listener()) == f"{__name__}.Listener"
    assert take(Listener()) == f"{__name__}.Listener-2"
    assert take(module) == "acme_plugin"
    assert take(Listener(), "mine") == "mine"


def test_an_installed_plugin_takes_part(site: Site) -> None:
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    _tell("report")
    assert _heard_by("acme_plugin") == ["report"]


def test_an_installed_class_is_instantiated(site: Site) -> None:
    source = """
        from wove.plugins import hookimpl
        heard = []
        class Plugin:
            @hookimpl
            def wove_task_ready(self, task):
                heard.append(task)
    """
    site.install("acme-plugin", modules={"acme_class.py": source}, plugins={"acme": "acme_class:Plugin"})
    _tell("report")
    assert _heard_by("acme_class") == ["report"]


def test_an_installed_plugin_is_imported_at_the_first_use_of_hooks(site: Site, take: Registering) -> None:
    site.install("acme-plugin", modules={"acme_lazy.py": RECORDER}, plugins={"acme": "acme_lazy"})
    take(Listener())
    assert site.imported() == set()
    active_hooks()
    assert site.imported() == {"acme_lazy"}


def test_importing_wove_loads_neither_pluggy_nor_entry_points() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", LAZY], check=True, timeout=60)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise OSError('no licence')", "no licence"),
        ("import acme_is_not_there", "acme_is_not_there"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("x = 1", "implements no hook"),
        ("from wove.plugins import hookimpl\n@hookimpl\ndef wove_task_raedy(task): ...", "wove_task_ready"),
        ("from wove.plugins import hookimpl\n@hookimpl\ndef wove_task_ready(tusk): ...", "tusk"),
    ],
)
def test_a_broken_installed_plugin_is_logged_with_its_distribution_and_hurts_no_other(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, cause: str
) -> None:
    site.install("broken-plugin", modules={"broken_plugin.py": source}, plugins={"broken": "broken_plugin"})
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    _tell("report")
    assert _heard_by("acme_plugin") == ["report"]
    assert [(record.name, record.levelno) for record in caplog.records] == [("wove.plugins", logging.ERROR)]
    assert "'broken' of distribution broken-plugin (broken_plugin)" in caplog.text
    assert cause in caplog.text


def test_a_distribution_with_unreadable_entry_points_is_logged_and_hurts_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.write_metadata("broken-plugin", "[wove.plugins]\nno sign of equality\n")
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    _tell("report")
    assert _heard_by("acme_plugin") == ["report"]
    assert "broken-plugin" in caplog.text


def test_of_two_installed_plugins_of_one_name_the_second_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for distribution in ("one", "two"):
        site.install(
            distribution, modules={f"{distribution}_mod.py": RECORDER}, plugins={"acme": f"{distribution}_mod"}
        )
    _tell("report")
    assert sorted([_heard_by("one_mod"), _heard_by("two_mod")], key=str) == [["report"], []]
    assert "cannot be used and is left out" in caplog.text


def test_a_plugin_may_register_another_one_while_it_is_imported(site: Site) -> None:
    source = (
        RECORDER
        + "\n    from wove.plugins import register\n    from types import SimpleNamespace\n"
        + (
            "    second = []\n"
            "    class Second:\n"
            "        @hookimpl\n"
            "        def wove_task_ready(self, task):\n"
            "            second.append(task)\n"
            "    register(Second(), 'second')\n"
        )
    )
    site.install("acme-plugin", modules={"acme_two.py": source}, plugins={"acme": "acme_two"})
    try:
        _tell("report")
        assert _heard_by("acme_two") == ["report"]
        assert sys.modules["acme_two"].__dict__["second"] == ["report"]
    finally:
        unregister("second")


def test_a_plugin_may_use_hooks_while_it_is_imported(site: Site) -> None:
    source = RECORDER + "\n    from wove.plugins import active_hooks\n    early = active_hooks()\n"
    site.install("acme-plugin", modules={"acme_early.py": source}, plugins={"acme": "acme_early"})
    _tell("report")
    assert _heard_by("acme_early") == ["report"]
    assert sys.modules["acme_early"].__dict__["early"].wove_task_ready is None


def test_threads_that_start_together_load_a_plugin_once(site: Site) -> None:
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    together = threading.Barrier(4)

    def start() -> None:
        together.wait(10)
        active_hooks()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    _tell("report")
    assert _heard_by("acme_plugin") == ["report"]


def test_a_rescan_drops_installed_plugins_that_are_gone_and_keeps_registered_ones(
    site: Site, take: Registering
) -> None:
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    listener = Listener()
    take(listener)
    _tell("first")
    (site.folder / "acme_plugin-1.0.dist-info" / "entry_points.txt").unlink()
    rescan()
    _tell("second")
    assert _heard_by("acme_plugin") == ["first"]
    assert listener.heard == ["first", "second"]


def test_an_installed_plugin_can_be_unregistered_by_name_before_the_first_weave(site: Site) -> None:
    site.install("acme-plugin", modules={"acme_plugin.py": RECORDER}, plugins={"acme": "acme_plugin"})
    unregister("acme")
    assert active_hooks().wove_task_ready is None


class Nothing:
    def wove_task_ready(self, task: str) -> None: ...


class Misspelled:
    @hookimpl
    def wove_task_redy(self, task: str) -> None: ...


class UnknownParameter:
    @hookimpl
    def wove_task_ready(self, tusk: str) -> None: ...


class Coroutine:
    @hookimpl
    async def wove_task_ready(self, task: str) -> None: ...


class Generator:
    @hookimpl
    def wove_around_task(self, task: str) -> object:
        yield


class Wrapper:
    @hookimpl(wrapper=True)
    def wove_task_ready(self, task: str) -> object:
        yield


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Nothing(), "implements no hook: mark its functions with wove.plugins.hookimpl"),
        (Misspelled(), "wove_task_redy is no hook. Did you mean 'wove_task_ready'?"),
        (UnknownParameter(), "tusk"),
        (Coroutine(), "wove_task_ready is an async function"),
        (Generator(), "wove_around_task is a generator; decorate it with contextlib.asynccontextmanager"),
        (Wrapper(), "wove_task_ready is a hook wrapper"),
        (Listener, "register an instance of Listener"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_plugin_that_could_not_work_is_refused_by_name_and_leaves_no_trace(
    site: Site, plugin: object, message: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        register(plugin, "acme")
    assert "Plugin 'acme'" in str(caught.value)
    assert message in str(caught.value)
    assert active_hooks().wove_task_ready is None
    with pytest.raises(AdapterError, match="No plugin 'acme'"):
        unregister("acme")


def test_a_name_or_object_is_registered_once(take: Registering) -> None:
    listener = Listener()
    take(listener, "acme")
    with pytest.raises(AdapterError, match=r"name 'acme' is taken by <.*Listener.*unregister\('acme'\) first"):
        register(Listener(), "acme")
    for name in ("acme", "other", None):
        with pytest.raises(AdapterError, match="Plugin 'acme' is already registered"):
            register(listener, name)
    _tell("report")
    assert listener.heard == ["report"]


@pytest.mark.usefixtures("site")
def test_unregistering_an_unknown_plugin_suggests_the_nearest_name() -> None:
    with pytest.raises(AdapterError, match=r"No plugin 'timing' is registered\. Did you mean 'timings'"):
        unregister("timing")
    with pytest.raises(AdapterError, match="Registered: debug, timings"):
        unregister(Listener())
