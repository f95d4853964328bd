"""The dependency graph that parameter names make. Pure: no I/O, no asyncio."""

from collections.abc import Iterable, Sequence

from wove.errors import CircularDependencyError, UnresolvedSignatureError, did_you_mean, nearest_name
from wove.flow.tasks import TaskSpec

DATA = "data"


class Node:
    """A task in its graph.

    Attributes:
        index: its place in definition order.
        dependencies: indexes of the tasks whose results it needs.
        task_arguments: parameter name and task index, for each parameter that a task provides.
        value_arguments: the parameters that initial values provide.
        wants_data: whether the parameter ``data`` receives all initial values.
        item_parameter: the parameter that receives the item of a mapped task.
        source_task: index of the task that is mapped over, if it is a task.
    """

    __slots__ = (
        "dependencies",
        "index",
        "item_parameter",
        "source_task",
        "spec",
        "task_arguments",
        "value_arguments",
        "wants_data",
    )

    def __init__(self, index: int, spec: TaskSpec) -> None:
        self.index = index
        self.spec = spec
        self.dependencies: list[int] = []
        self.task_arguments: list[tuple[str, int]] = []
        self.value_arguments: list[str] = []
        self.wants_data = False
        self.item_parameter: str | None = None
        self.source_task: int | None = None


class Graph:
    """The tasks of one weave and who waits for whom.

    Args:
        specs: the declared tasks in definition order.
        values: the names of the initial values.

    Raises:
        UnresolvedSignatureError: a parameter is neither a task nor an initial value and has no default.
        CircularDependencyError: tasks wait for each other.
    """

    def __init__(self, specs: Iterable[TaskSpec], values: Iterable[str] = ()) -> None:
        self.nodes = [Node(index, spec) for index, spec in enumerate(specs)]
        self._index = {node.spec.name: node.index for node in self.nodes}
        self._values = frozenset(values)
        self.dependents: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            self._connect(node)
        self.order = self._topological_order()

    def unused_values(self) -> frozenset[str]:
        """The initial values that no task takes, neither by name, nor as a map source, nor through ``data``."""
        used = {name for node in self.nodes for name in node.value_arguments}
        used.update(node.spec.source_name for node in self.nodes if node.spec.source_name is not None)
        if DATA in used or any(node.wants_data for node in self.nodes):
            return frozenset()
        return self._values - used

    def descendants(self, index: int) -> set[int]:
        """Every task that needs the result of this one, directly or through others."""
        found: set[int] = set()
        waiting = [index]
        while waiting:
            for dependent in self.dependents[waiting.pop()]:
                if dependent not in found:
                    found.add(dependent)
                    waiting.append(dependent)
        return found

    def plan(self) -> dict[str, object]:
        """Return the graph as plain names: ``dependencies``, ``dependents``, ``tiers`` and ``sorted_tasks``."""
        names = [node.spec.name for node in self.nodes]
        return {
            "dependencies": {names[n.index]: {names[d] for d in n.dependencies} for n in self.nodes},
            "dependents": {name: {names[d] for d in self.dependents[i]} for i, name in enumerate(names)},
            "tiers": [[names[i] for i in tier] for tier in self._tiers()],
            "sorted_tasks": [names[i] for i in self.order],
        }

    def _connect(self, node: Node) -> None:
        spec = node.spec
        if spec.source_name is not None:
            self._connect_source(node, spec.source_name)
        parameters = spec.parameters
        unknown = [name for name in parameters.names if not self._provide(node, name)]
        if spec.mapped:
            node.item_parameter = self._item_parameter(spec, unknown)
            unknown.remove(node.item_parameter)
        for name in unknown:
            if name in parameters.required:
                raise self._unresolved(spec.name, name)
        if parameters.positional_only:
            self._refuse_positional_only(node)
        for dependency in node.dependencies:
            self.dependents[dependency].append(node.index)

    def _provide(self, node: Node, name: str) -> bool:
        index = self._index.get(name)
        if index is not None:
            node.task_arguments.append((name, index))
            if index not in node.dependencies:
                node.dependencies.append(index)
        elif name in self._values:
            node.value_arguments.append(name)
        elif name == DATA:
            node.wants_data = True
        else:
            return False
        return True

    def _connect_source(self, node: Node, source: str) -> None:
        node.source_task = self._index.get(source)
        if node.source_task is not None:
            node.dependencies.append(node.source_task)
        elif source not in self._values and source != DATA:
            known = [*self._index, *self._values]
            raise UnresolvedSignatureError(
                f"Task {node.spec.name!r} is mapped over {source!r}, which is neither a task nor an initial value "
                f"of the weave.{did_you_mean(source, known)} Declare a task of that name or pass weave({source}=...).",
                task=node.spec.name,
                parameter=source,
            )

    def _item_parameter(self, spec: TaskSpec, unknown: Sequence[str]) -> str:
        candidates = [name for name in unknown if name in spec.parameters.required] or list(unknown)
        if len(candidates) == 1:
            return candidates[0]
        known = [*self._index, *self._values]
        has, advice = "none", "Add one."
        if candidates:
            has = f"{len(candidates)} ({', '.join(candidates)})"
            advice = "Give the others defaults, or provide them as tasks or initial values."
        nearest = ((name, nearest_name(name, known)) for name in candidates)
        meant = "".join(f" Did you mean {known_name!r} by {name!r}?" for name, known_name in nearest if known_name)
        raise UnresolvedSignatureError(
            f"Mapped task {spec.name!r} must have exactly one parameter that is no task and no initial value, to "
            f"receive the item; it has {has}.{meant} {advice}",
            task=spec.name,
        )

    def _unresolved(self, task: str, parameter: str) -> UnresolvedSignatureError:
        known = [name for name in (*self._index, *self._values) if name != task]
        return UnresolvedSignatureError(
            f"Task {task!r}: nothing provides its parameter {parameter!r}.{did_you_mean(parameter, known)} "
            f"Declare a task of that name, pass weave({parameter}=...), or give the parameter a default.",
            task=task,
            parameter=parameter,
        )

    def _refuse_positional_only(self, node: Node) -> None:
        positional_only = node.spec.parameters.positional_only
        if not positional_only:
            return
        provided = {name for name, _ in node.task_arguments}.union(node.value_arguments)
        for name in positional_only:
            if name != node.item_parameter and (name in node.spec.parameters.required or name in provided):
                raise UnresolvedSignatureError(
                    f"Task {node.spec.name!r}: its parameter {name!r} is positional-only, and dependencies are passed "
                    "by name. Remove the '/' or wrap the callable in a lambda.",
                    task=node.spec.name,
                    parameter=name,
                )

    def _topological_order(self) -> list[int]:
        missing = [len(node.dependencies) for node in self.nodes]
        order = [index for index, count in enumerate(missing) if count == 0]
        for index in order:
            for dependent in self.dependents[index]:
                missing[dependent] -= 1
                if missing[dependent] == 0:
                    order.append(dependent)
        if len(order) < len(self.nodes):
            raise CircularDependencyError(self._cycle({i for i, count in enumerate(missing) if count}))
        return order

    def _cycle(self, stuck: set[int]) -> list[str]:
        # Every stuck task has a stuck dependency, so walking backwards must meet a task again.
        path = [min(stuck)]
        while True:
            following = next(d for d in self.nodes[path[-1]].dependencies if d in stuck)
            if following in path:
                cycle = [*path[path.index(following) :], following]
                return [self.nodes[index].spec.name for index in cycle]
            path.append(following)

    def _tiers(self) -> list[list[int]]:
        depth = [0] * len(self.nodes)
        for index in self.order:
            depth[index] = 1 + max((depth[d] for d in self.nodes[index].dependencies), default=-1)
        tiers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
        for index, level in enumerate(depth):
            tiers[level].append(index)
        return tiers
