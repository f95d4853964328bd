"""From what was declared and configured to what will run: graph, effective options, environments, plugins'
decisions.
"""

import os
from collections.abc import Mapping, Sequence
from contextvars import Context
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from wove.errors import OptionError, did_you_mean
from wove.flow.current import current_engine
from wove.flow.doors import LoopKind
from wove.flow.engine import Engine
from wove.flow.graph import Graph
from wove.flow.result import WoveResult
from wove.flow.runner import Runner
from wove.flow.runs import TaskRun
from wove.flow.sources import plain_items
from wove.flow.tasks import TaskSpec
from wove.options import TASK_OPTIONS, WEAVE_DEFAULTS, WEAVE_OPTIONS, TaskOptions, WeaveOptions, resolve_options
from wove.runtime import runtime

if TYPE_CHECKING:
    from wove.plugins.hooks import ActiveHooks
    from wove.plugins.types import ExecutionPlan
    from wove.settings.configuration import Configuration, EnvironmentSettings

# What a weave does in one turn of the background loop holds up the traffic of all others.
_FEW_AT_ONCE = 64
_SHORT_MAP = 1000


class Defaults:
    """The options that the tasks of one weave start from, by environment.

    Args:
        configuration: what is configured.
        given: the task options that the weave was given, ``environment`` among them.
    """

    def __init__(self, configuration: "Configuration", given: Mapping[str, object]) -> None:
        self._configuration = configuration
        self._given = {name: value for name, value in given.items() if name != "environment"}
        self.environment = cast(str, given.get("environment") or configuration.default_environment)
        self._known: dict[str, tuple[EnvironmentSettings, TaskOptions]] = {}

    def of(self, environment: str, *, where: str) -> "tuple[EnvironmentSettings, TaskOptions]":
        """Return an environment's settings and the options of a task in it that has none of its own.

        Raises:
            UnknownEnvironmentError: nothing defines it.
        """
        known = self._known.get(environment)
        if known is None:
            configuration = self._configuration
            settings = configuration.environment(environment, where=where)
            options = resolve_options(self._given, settings.task_options, configuration.task_options)
            known = self._known[environment] = settings, options
        return known

    def effective(self, spec: TaskSpec) -> "tuple[EnvironmentSettings, TaskOptions]":
        """Return the environment of a task and its complete options."""
        if not spec.options and self.environment in self._known:
            return self._known[self.environment]
        environment = cast(str | None, spec.options.get("environment")) or self.environment
        settings, options = self.of(environment, where=f"Task {spec.name!r}")
        return settings, cast(TaskOptions, {**options, **spec.options})

    def weave_options(self, given: Mapping[str, object]) -> WeaveOptions:
        """Return the complete options of the weave itself: given, environment, global, built in."""
        configuration = self._configuration
        settings, _ = self.of(self.environment, where="weave()")
        return cast(WeaveOptions, {**WEAVE_DEFAULTS, **configuration.weave_options, **settings.weave_options, **given})


class Plan(NamedTuple):
    """A weave that is ready to run."""

    weave: str
    runner: Runner
    engine: Engine
    runs: Sequence[TaskRun]
    options: WeaveOptions
    context: Context

    @property
    def loop(self) -> LoopKind:
        """Where it runs. The user's code, and long work, get a loop for themselves."""
        if not self.engine.unobserved or not all(map(_runs_elsewhere, self.runs)):
            return "new"
        if not self.engine.hooks.quiet or any(map(_has_limit, self.runs)):
            return "any"
        return "background" if sum(map(_most_at_once, self.runs)) <= _FEW_AT_ONCE else "any"


def _runs_elsewhere(run: TaskRun) -> bool:
    if run.is_local:
        return False
    spec = run.node.spec
    # What it is mapped over may be an asynchronous iterator of the user's.
    return not spec.mapped or (spec.source_name is None and plain_items(spec.source) is not None)


def _has_limit(run: TaskRun) -> bool:
    """Tell whether a task must end in time, even if an adapter blocks the background loop."""
    return run.options["timeout"] is not None or run.options["delivery_timeout"] is not None


def _most_at_once(run: TaskRun) -> int:
    spec = run.node.spec
    items = plain_items(spec.source) if spec.mapped else None
    if items is None:
        return 1
    return len(items) if len(items) > _SHORT_MAP else min(len(items), run.options["workers"] or len(items))


def split_keywords(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the task options among the keywords of ``weave(...)`` from the initial values."""
    options = {name: value for name, value in keywords.items() if name in TASK_OPTIONS}
    return options, {name: value for name, value in keywords.items() if name not in options}


def check_values(graph: Graph) -> None:
    """Refuse an initial value that nobody uses and whose name looks like a misspelled option."""
    for name in sorted(graph.unused_values()):
        nearest = did_you_mean(name, [*TASK_OPTIONS, *WEAVE_OPTIONS])
        if nearest:
            raise OptionError(
                f"weave(): no option is named {name!r}, and no task uses an initial value of that name.{nearest}"
            )


def make_plan(
    specs: Sequence[TaskSpec],
    values: Mapping[str, Any],
    defaults: Defaults,
    options: WeaveOptions,
    context: Context,
) -> Plan:
    """Check everything that can be checked before a task runs, ask the plugins, and return what will run.

    Raises:
        UnresolvedSignatureError, CircularDependencyError, UnknownEnvironmentError, OptionError: as their names say.
        GraphRejectedError: a plugin refused the graph.
    """
    from wove.plugins.manager import active_hooks

    graph = Graph(specs, values)
    check_values(graph)
    hooks = active_hooks(debug=options["debug"])
    weave = os.urandom(16).hex()
    environments: dict[str, Mapping[str, Any]] = {}
    runs: list[TaskRun] = []
    for node in graph.nodes:
        settings, effective = defaults.effective(node.spec)
        if hooks.wove_task_options is not None:
            effective = hooks.wove_task_options(
                weave=weave, task=node.spec.name, options=effective, mapped=node.spec.mapped
            )
            if effective["environment"]:
                settings, _ = defaults.of(effective["environment"], where=f"Task {node.spec.name!r}")
        if not settings.is_local:
            environments[settings.name] = settings.definition
        runs.append(TaskRun(node, effective, environment=settings.name, is_local=settings.is_local, context=context))
    _ask_plugins(hooks, weave, graph, runs, values, options)
    engine = Engine(
        weave,
        hooks=hooks,
        defaults=defaults,
        environments=environments,
        max_workers=options["max_workers"],
        max_pending=options["max_pending"],
        run_config=options,
    )
    context.run(current_engine.set, engine)
    return Plan(weave, Runner(engine, graph, runs, values), engine, runs, options, context)


async def execute(plan: Plan, result: WoveResult) -> None:
    """Run a plan on the running loop and fill the result, whatever happens."""
    raised: BaseException | None = None
    try:
        await plan.runner.run()
    except BaseException as error:
        raised = error
        raise
    finally:
        runs = {run.name: run for run in plan.runs}
        first = plan.runner.first_failure
        result._fill(runs, plan.engine.failures, first, unread=first is not raised)
        notify = plan.engine.hooks.wove_weave_finished
        if notify is not None:
            notify(weave=plan.weave, result=result, runs=runs)


def _ask_plugins(
    hooks: "ActiveHooks",
    weave: str,
    graph: Graph,
    runs: Sequence[TaskRun],
    values: Mapping[str, Any],
    options: WeaveOptions,
) -> None:
    if hooks.wove_veto is None and hooks.wove_weave_planned is None:
        return
    plan = cast("ExecutionPlan", {**graph.plan(), "tasks": {run.name: _planned(run, values) for run in runs}})
    if hooks.wove_veto is not None:
        hooks.wove_veto(weave=weave, plan=plan)
    if hooks.wove_weave_planned is not None:
        hooks.wove_weave_planned(weave=weave, plan=plan, options=MappingProxyType(options))


def _planned(run: TaskRun, values: Mapping[str, Any]) -> dict[str, object]:
    spec = run.node.spec
    # What a task is going to return, nobody knows yet.
    items = plain_items(run.source([], values)) if spec.mapped and run.node.source_task is None else None
    return {
        "sync": not spec.is_async,
        "mapped": spec.mapped,
        "size": None if items is None else len(items),
        "environment": run.environment,
        "options": MappingProxyType(run.options),
    }


def configured(given: Mapping[str, object]) -> Defaults:
    """Return the defaults of a weave that starts now."""
    return Defaults(runtime.current(), given)
