"""Adapters are found by name among installed distributions, and every way that can fail says what to do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.distributions import Site, only_site
from wove.errors import AdapterError, MissingDispatchFeatureError, UnknownExecutorError
from wove.integrations import (
    BackendAdapter,
    get_backend_adapter_class,
    get_backend_adapter_dependencies,
    get_backend_adapter_install_hints,
)
from wove.integrations.base import CONTRACT_VERSION
from wove.integrations.registry import check_adapter_class, check_required_modules
from wove.plugins import rescan

KNOWN = {
    "celery": "wove-celery",
    "temporal": "wove-temporal",
    "ray": "wove-ray",
    "rq": "wove-rq",
    "taskiq": "wove-taskiq",
    "arq": "wove-arq",
    "dask": "wove-dask",
    "kubernetes_jobs": "wove-k8s",
    "aws_batch": "wove-batch",
    "slurm": "wove-slurm",
}

ADAPTER = """
    from wove.integrations import BackendAdapter

    class AcmeAdapter(BackendAdapter):
        required_modules = ("acme_queue", "acme_queue.client")
        install_hint = "acme-queue"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder that replaces every installed distribution for the length of a test."""
    with only_site(tmp_path / "site") as site:
        yield site


def _install_acme(site: Site, source: str = ADAPTER, name: str = "acme") -> None:
    site.install(f"wove-{name}", modules={f"{name}.py": source}, adapters={name: f"{name}:AcmeAdapter"})


def test_an_installed_adapter_is_found_by_its_name(site: Site) -> None:
    _install_acme(site)
    found = get_backend_adapter_class("acme")
    assert issubclass(found, BackendAdapter)
    assert (found.__module__, found.__qualname__) == ("acme", "AcmeAdapter")


def test_finding_one_adapter_imports_no_other(site: Site) -> None:
    _install_acme(site)
    _install_acme(site, "raise ImportError('broken')", "other")
    get_backend_adapter_class("acme")
    assert site.imported() == {"acme"}
    assert "other" not in sys.modules


def test_an_adapter_that_is_installed_later_is_found_after_a_rescan(site: Site) -> None:
    with pytest.raises(UnknownExecutorError):
        get_backend_adapter_class("acme")
    _install_acme(site)
    rescan()
    assert get_backend_adapter_class("acme").__name__ == "AcmeAdapter"


def test_a_name_that_two_distributions_claim_names_both(site: Site) -> None:
    for distribution in ("acme-one", "acme-two"):
        site.install(distribution, adapters={"acme": f"{distribution.replace('-', '_')}:Adapter"})
    with pytest.raises(AdapterError) as caught:
        get_backend_adapter_class("acme", environment="jobs")
    message = str(caught.value)
    assert message.startswith("Environment 'jobs': executor 'acme' is claimed by ")
    assert "acme-one (acme_one:Adapter)" in message
    assert "acme-two (acme_two:Adapter)" in message
    assert "pip uninstall acme-" in message


def test_a_distribution_that_is_on_the_path_twice_claims_its_names_once(site: Site, tmp_path: Path) -> None:
    _install_acme(site)
    shadowed = tmp_path / "further back"
    Site(shadowed).install("Wove_Acme", adapters={"acme": "old:Adapter"})
    sys.path.append(str(shadowed))
    rescan()
    assert get_backend_adapter_class("acme").__module__ == "acme"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import acme_is_not_there", ModuleNotFoundError),
        ("raise OSError('no licence')", OSError),
        ("x = 1", AttributeError),
        ("import sys; sys.exit(1)", SystemExit),
        ("def (", SyntaxError),
    ],
)
def test_an_adapter_that_cannot_be_imported_names_its_distribution_and_chains_the_reason(
    site: Site, source: str, cause: type[BaseException]
) -> None:
    _install_acme(site, source)
    with pytest.raises(AdapterError) as caught:
        get_backend_adapter_class("acme", environment="jobs")
    assert "Environment 'jobs': executor 'acme' of wove-acme (acme:AcmeAdapter) cannot be imported" in str(caught.value)
    assert cause.__name__ in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)


def test_a_broken_adapter_hurts_no_other(site: Site) -> None:
    _install_acme(site, "raise ImportError('broken')", "broken")
    _install_acme(site)
    assert get_backend_adapter_class("acme").__name__ == "AcmeAdapter"


@pytest.mark.parametrize("source", ["class AcmeAdapter: ...", "AcmeAdapter = 7", "def AcmeAdapter(): ..."])
def test_what_is_no_subclass_of_the_contract_is_refused(site: Site, source: str) -> None:
    _install_acme(site, source)
    with pytest.raises(AdapterError, match=r"wove-acme \(acme:AcmeAdapter\): .* is no adapter"):
        get_backend_adapter_class("acme")


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (CONTRACT_VERSION + 1, "Upgrade Wove: pip install --upgrade wove-core"),
        (0, "Upgrade the adapter: pip install --upgrade wove-acme"),
        ("1.0", "Upgrade the adapter: pip install --upgrade wove-acme"),
    ],
)
def test_an_adapter_for_another_contract_says_which_side_to_upgrade(site: Site, version: object, advice: str) -> None:
    _install_acme(site, f"{ADAPTER}        contract_version = {version!r}\n")
    with pytest.raises(AdapterError) as caught:
        get_backend_adapter_class("acme")
    assert f"AcmeAdapter is made for version {version!r} of the adapter contract" in str(caught.value)
    assert advice in str(caught.value)


def test_a_class_that_is_given_directly_is_checked_alike() -> None:
    class Fine(BackendAdapter):
        pass

    class Newer(BackendAdapter):
        contract_version = CONTRACT_VERSION + 1

    assert check_adapter_class(Fine, where="Executor 'acme'") is Fine
    for wrong in (Newer, Fine.__new__(Fine), None, dict):
        with pytest.raises(AdapterError, match="Executor 'acme': "):
            check_adapter_class(wrong, where="Executor 'acme'")


@pytest.mark.parametrize(("name", "distribution"), KNOWN.items())
@pytest.mark.usefixtures("site")
def test_a_known_name_that_is_not_installed_says_what_to_install(name: str, distribution: str) -> None:
    with pytest.raises(UnknownExecutorError) as caught:
        get_backend_adapter_class(name, environment="jobs")
    assert str(caught.value) == (
        f"Environment 'jobs': executor {name!r} is not installed. Install it with: pip install {distribution}"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("celry", "Did you mean 'celery'? Install it with: pip install wove-celery."),
        ("kubernetes_job", "Did you mean 'kubernetes_jobs'? Install it with: pip install wove-k8s."),
        ("websockets", "Did you mean 'websocket'? Executors: "),
        ("acmee", "Did you mean 'acme'? Executors: "),
        ("zzz", "no executor named 'zzz'. Executors: local, stdio,"),
    ],
)
def test_an_unknown_name_suggests_the_nearest_of_all(site: Site, name: str, hint: str) -> None:
    _install_acme(site)
    with pytest.raises(UnknownExecutorError) as caught:
        get_backend_adapter_class(name, environment="jobs")
    assert str(caught.value).startswith(f"Environment 'jobs': no executor named {name!r}.")
    assert hint in str(caught.value)
    assert site.imported() == set()


def test_the_suggestion_of_an_installed_adapter_does_not_say_to_install_it(site: Site) -> None:
    _install_acme(site, ADAPTER, "celery")
    with pytest.raises(UnknownExecutorError) as caught:
        get_backend_adapter_class("celry")
    assert "Did you mean 'celery'?" in str(caught.value)
    assert "pip install" not in str(caught.value)


@pytest.mark.usefixtures("site")
def test_a_built_in_executor_is_no_adapter() -> None:
    with pytest.raises(UnknownExecutorError, match="executor 'http' is built in"):
        get_backend_adapter_class("http")


class Needy(BackendAdapter):
    install_hint = "acme-queue"


def _check(*modules: str, adapter: type[BackendAdapter] = Needy) -> None:
    check_required_modules(adapter, environment="jobs", required_modules=modules)


def test_modules_that_can_be_imported_pass_whether_they_are_loaded_or_not(site: Site) -> None:
    site.install("acme-queue", modules={"acme_queue/__init__.py": "", "acme_queue/client.py": "raise RuntimeError"})
    _check("json", "importlib.metadata", "acme_queue", "acme_queue.client")


@pytest.mark.parametrize(
    "module", ["acme_missing", "acme_missing.client.deep", "acme_queue.missing", "acme_queue.flat.deep", "needy.client"]
)
def test_a_missing_module_names_environment_adapter_module_and_remedy(site: Site, module: str) -> None:
    site.install("acme-queue", modules={"acme_queue/__init__.py": "", "acme_queue/flat.py": ""})
    site.install("needy", modules={"needy/__init__.py": "import acme_missing", "needy/client.py": ""})
    with pytest.raises(MissingDispatchFeatureError) as caught:
        _check("json", module)
    assert str(caught.value) == (
        f"Environment 'jobs': Needy, which imports {module!r}, needs a package that is not installed. "
        "Install it with: pip install acme-queue"
    )


def test_required_modules_that_are_one_string_are_not_taken_for_letters() -> None:
    class Single(BackendAdapter):
        required_modules = "json"

    with pytest.raises(AdapterError, match=r"Single is the string 'json'; make it a tuple: \('json',\)"):
        check_adapter_class(Single, where="Environment 'jobs'")


def test_a_package_that_is_installed_and_broken_is_not_called_missing(site: Site) -> None:
    site.install("acme-queue", modules={"acme_queue/__init__.py": "raise OSError('no licence')"})
    with pytest.raises(AdapterError, match=r"'acme_queue\.client', whose import fails: OSError: no licence") as caught:
        _check("acme_queue.client")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_module_that_exists_in_memory_only_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "acme_in_memory", ModuleType("acme_in_memory"))
    _check("acme_in_memory")


def test_the_modules_of_the_class_are_checked_unless_others_are_given() -> None:
    class Demanding(BackendAdapter):
        required_modules = ("acme_missing",)

    with pytest.raises(MissingDispatchFeatureError, match="acme_missing"):
        check_required_modules(Demanding, environment="jobs")
    check_required_modules(Demanding, environment="jobs", required_modules=())


@pytest.mark.parametrize(
    ("hint", "command"),
    [
        (None, "pip install <the package that provides 'acme_missing'>"),
        ("acme-queue", "pip install acme-queue"),
        ("acme-queue acme-tools", "pip install acme-queue acme-tools"),
        ("acme-queue[redis]>=2", 'pip install "acme-queue[redis]>=2"'),
        ("pip install acme-queue", "pip install acme-queue"),
    ],
)
def test_an_install_hint_becomes_a_command_that_a_shell_takes(hint: str | None, command: str) -> None:
    adapter = type("Hinting", (BackendAdapter,), {"install_hint": hint})
    with pytest.raises(MissingDispatchFeatureError) as caught:
        _check("acme_missing.client", adapter=adapter)
    assert caught.value.install == command


@pytest.mark.usefixtures("site")
def test_dependencies_and_hints_cover_every_known_adapter_without_its_being_installed() -> None:
    assert get_backend_adapter_install_hints() == KNOWN
    dependencies = get_backend_adapter_dependencies()
    assert dependencies.keys() == KNOWN.keys()
    assert dependencies["celery"] == ("celery",)
    assert dependencies["kubernetes_jobs"] == ("kubernetes",)
    assert dependencies["slurm"] == ()


def test_dependencies_and_hints_of_installed_adapters_are_their_own(site: Site) -> None:
    _install_acme(site)
    site.install(
        "wove-celery",
        modules={"wove_celery.py": ADAPTER.replace("install_hint", "other")},
        adapters={"celery": "wove_celery:AcmeAdapter"},
    )
    assert get_backend_adapter_dependencies()["acme"] == ("acme_queue", "acme_queue.client")
    assert get_backend_adapter_install_hints()["acme"] == "acme-queue"
    assert get_backend_adapter_dependencies()["celery"] == ("acme_queue", "acme_queue.client")
    assert get_backend_adapter_install_hints()["celery"] == "wove-celery"


def test_a_broken_adapter_is_logged_and_left_out_of_the_listings(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    _install_acme(site, "raise ImportError('broken')")
    _install_acme(site, "raise ImportError('broken')", "rq")
    assert get_backend_adapter_install_hints() == KNOWN
    assert "executor 'acme' of wove-acme" in caplog.text
    assert "executor 'rq' of wove-rq" in caplog.text
