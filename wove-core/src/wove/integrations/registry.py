"""Finds the adapter of a name among the installed distributions, and says what to install where there is none."""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from wove.errors import AdapterError, MissingDispatchFeatureError, UnknownExecutorError, nearest_name
from wove.integrations.base import CONTRACT_VERSION, BackendAdapter
from wove.plugins.discovery import Offer, offers

GROUP = "wove.adapters"
OLDEST_CONTRACT_VERSION = 1
BUILT_IN_EXECUTORS = ("local", "stdio", "http", "https", "grpc", "websocket")

logger = logging.getLogger("wove.plugins")


@dataclass(frozen=True, slots=True)
class KnownAdapter:
    """What Wove can say of one of its own adapters without its being installed.

    Attributes:
        distribution: what to ``pip install``; brings the backend's package with it.
        modules: the import names that it needs.
    """

    distribution: str
    modules: tuple[str, ...]


KNOWN_ADAPTERS: Mapping[str, KnownAdapter] = {
    "celery": KnownAdapter("wove-celery", ("celery",)),
    "temporal": KnownAdapter("wove-temporal", ("temporalio",)),
    "ray": KnownAdapter("wove-ray", ("ray",)),
    "rq": KnownAdapter("wove-rq", ("rq",)),
    "taskiq": KnownAdapter("wove-taskiq", ("taskiq",)),
    "arq": KnownAdapter("wove-arq", ("arq",)),
    "dask": KnownAdapter("wove-dask", ("distributed",)),
    "kubernetes_jobs": KnownAdapter("wove-k8s", ("kubernetes",)),
    "aws_batch": KnownAdapter("wove-batch", ("boto3",)),
    # Slurm is driven by its own commands (sbatch, squeue): nothing to import.
    "slurm": KnownAdapter("wove-slurm", ()),
}


def get_backend_adapter_class(name: str, *, environment: str | None = None) -> type[BackendAdapter]:
    """Return the adapter class that an installed distribution offers under a name. No other adapter is imported.

    Args:
        name: the executor name, e.g. ``"celery"``: an entry point in the group ``wove.adapters``.
        environment: the environment that wants it, for the error messages.

    Raises:
        UnknownExecutorError: no installed distribution offers the name; says what to install, or the nearest name.
        AdapterError: two distributions claim the name, or what is offered cannot be imported, is no `BackendAdapter`
            or is made for another version of the contract.
    """
    where = f"Environment {environment!r}: " if environment else ""
    claims = [offer for offer in offers(GROUP) if offer.name == name]
    if not claims:
        raise UnknownExecutorError(f"{where}{_why_not_found(name)}")
    if len(claims) > 1:
        raise AdapterError(
            f"{where}executor {name!r} is claimed by {' and by '.join(map(str, claims))}. "
            f"Keep one of them: pip uninstall {claims[-1].distribution}"
        )
    return _load(claims[0], where)


def _why_not_found(name: str) -> str:
    if name in BUILT_IN_EXECUTORS:
        return f"executor {name!r} is built in; it has no backend adapter."
    if name in KNOWN_ADAPTERS:
        return f"executor {name!r} is not installed. Install it with: pip install {KNOWN_ADAPTERS[name].distribution}"
    installed = {offer.name for offer in offers(GROUP)}
    everything = [*BUILT_IN_EXECUTORS, *KNOWN_ADAPTERS, *sorted(installed.difference(KNOWN_ADAPTERS))]
    nearest = nearest_name(name, everything)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    if nearest and nearest in KNOWN_ADAPTERS and nearest not in installed:
        hint += f" Install it with: pip install {KNOWN_ADAPTERS[nearest].distribution}."
    return f"no executor named {name!r}.{hint} Executors: {', '.join(everything)}."


def _load(offer: Offer, where: str) -> type[BackendAdapter]:
    try:
        loaded = offer.entry_point.load()
    # A module that calls sys.exit() must not end the program.
    except (Exception, SystemExit) as error:
        raise AdapterError(
            f"{where}executor {offer.name!r} of {offer} cannot be imported: {type(error).__name__}: {error}. "
            f"Repair it with: pip install --upgrade --force-reinstall {offer.distribution}"
        ) from error
    where = f"{where}executor {offer.name!r} of {offer}"
    return check_adapter_class(loaded, where=where, distribution=offer.distribution)


def check_adapter_class(adapter_class: object, *, where: str, distribution: str | None = None) -> type[BackendAdapter]:
    """Return an adapter class, having checked that this version of Wove can use it.

    Args:
        adapter_class: what an entry point or a user gave.
        where: the place, for the message.
        distribution: where the class comes from, for the advice.

    Raises:
        AdapterError: it is no subclass of `BackendAdapter`, made for another version of the contract, or its
            ``required_modules`` is a string.
    """
    if not (isinstance(adapter_class, type) and issubclass(adapter_class, BackendAdapter)):
        raise AdapterError(f"{where}: {adapter_class!r} is no adapter. Give a subclass of wove.BackendAdapter.")
    modules: object = adapter_class.required_modules
    if isinstance(modules, str):
        raise AdapterError(
            f"{where}: required_modules of {adapter_class.__qualname__} is the string {modules!r}; "
            f"make it a tuple: ({modules!r},)"
        )
    version: object = adapter_class.contract_version
    advice = f"pip install --upgrade {distribution}" if distribution else "change its contract_version with its code"
    if not isinstance(version, int) or version < OLDEST_CONTRACT_VERSION:
        raise AdapterError(
            f"{where}: {adapter_class.__qualname__} is made for version {version!r} of the adapter contract; this Wove "
            f"speaks versions {OLDEST_CONTRACT_VERSION} to {CONTRACT_VERSION}. Upgrade the adapter: {advice}"
        )
    if version > CONTRACT_VERSION:
        raise AdapterError(
            f"{where}: {adapter_class.__qualname__} is made for version {version} of the adapter contract; this Wove "
            f"speaks version {CONTRACT_VERSION} at most. Upgrade Wove: pip install --upgrade wove-core"
        )
    return adapter_class


def check_required_modules(
    adapter_class: type[BackendAdapter], *, environment: str, required_modules: Sequence[str] | None = None
) -> None:
    """Raise if a module that an adapter needs cannot be imported.

    The parents of a dotted name are imported, which may take long: call this away from an event loop.

    Args:
        adapter_class: has the ``required_modules`` and the ``install_hint``.
        environment: the environment that is about to start, for the message.
        required_modules: names to check instead of the class's own.

    Raises:
        MissingDispatchFeatureError: one is missing; names the environment, the module and what to install.
        AdapterError: a parent of a dotted name is installed and fails while it is imported.
    """
    for module in adapter_class.required_modules if required_modules is None else required_modules:
        where = f"Environment {environment!r}: {adapter_class.__qualname__}"
        if not _is_importable(module, where):
            raise MissingDispatchFeatureError(
                f"{where}, which imports {module!r},", install=_install_command(adapter_class.install_hint, module)
            )


def _is_importable(module: str, where: str) -> bool:
    if sys.modules.get(module) is not None:
        return True
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Finding `a.b` imports `a`, which is missing itself, or is no package, or misses something that it needs.
        return False
    except Exception as error:
        raise AdapterError(
            f"{where} needs {module!r}, whose import fails: {type(error).__name__}: {error}. Repair that package."
        ) from error


def _install_command(hint: str | None, module: str) -> str:
    if hint is None:
        return f"pip install <the package that provides {module.partition('.')[0]!r}>"
    if hint.startswith(("pip ", "uv ", "conda ", "python ")):
        return hint
    # A shell would read the brackets of extras and the signs of version limits as its own.
    words = (f'"{word}"' if re.search(r"[\[<>=!~;]", word) else word for word in hint.split())
    return f"pip install {' '.join(words)}"


def get_backend_adapter_dependencies() -> dict[str, tuple[str, ...]]:
    """Return the import names that each adapter needs, by executor name: Wove's own adapters and all installed ones.

    Imports every installed adapter; one that cannot be used is logged and, if it is not Wove's own, left out.
    """
    dependencies = {name: known.modules for name, known in KNOWN_ADAPTERS.items()}
    return dependencies | {name: tuple(cls.required_modules) for name, (cls, _) in _installed_classes().items()}


def get_backend_adapter_install_hints() -> dict[str, str]:
    """Return what to ``pip install`` for each adapter, by executor name: Wove's own adapters and all installed ones.

    Imports every installed adapter; one that cannot be used is logged and, if it is not Wove's own, left out.
    """
    hints = {name: known.distribution for name, known in KNOWN_ADAPTERS.items()}
    return hints | {name: cls.install_hint or offer.distribution for name, (cls, offer) in _installed_classes().items()}


def _installed_classes() -> dict[str, tuple[type[BackendAdapter], Offer]]:
    found = {}
    for offer in offers(GROUP):
        try:
            found[offer.name] = get_backend_adapter_class(offer.name), offer
        except AdapterError as error:
            logger.warning("%s", error, exc_info=error)
    return found
