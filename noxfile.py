"""The project's chores: `nox` runs everything that CI runs, `nox -l` lists the sessions, `nox -s lint` runs one."""

import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
SUPPORTED = ("3.11", "3.12", "3.13")
CORE = "wove-core"
# What the tests of core exercise: every built-in executor.
CORE_EXTRAS = "[grpc,websocket]"
# Most tests wait for processes, timeouts and heartbeats: four at a time keep two cores busy. A class stays together,
# for the servers that its tests share.
SIDE_BY_SIDE = ("-n", "4", "--dist", "loadscope")
# In CI, a test that fails is run once more, and the report names it as RERUN, with the reason: these wait for threads,
# processes and servers, and on a machine that others use too one of thousands comes too late. One that is named often
# is broken.
SECOND_CHANCE = ("--reruns", "1", "-raR", "--rerun-show-tracebacks") if os.environ.get("CI") else ()
# And what the tests of adapters start takes its time.
ADAPTERS_AT_ONCE = 2
# A package as a third party writes it; nothing of ours knows of it.
EXAMPLE = "./examples/acme-queue"
LISTING = """
from importlib.metadata import entry_points
found = sorted(entry_points(group="wove.adapters"), key=lambda point: point.name)
print(f"wove.adapters: {len(found)} entry points")
for point in found:
    print(f"  {point.name} = {point.value} ({point.dist.name} {point.dist.version})")
"""


def _offer_pyenv_interpreters() -> None:
    """Put pyenv's interpreters on PATH, before its shims: a shim only works for a version that is enabled."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [str(folder) for version in SUPPORTED for folder in versions.glob(f"{version}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


def _is_installed(version: str) -> bool:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    return version == running or shutil.which(f"python{version}") is not None


def _read_toml(folder: Path) -> dict[str, Any]:
    with (folder / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def _groups(*names: str, folder: Path = ROOT) -> list[str]:
    """The requirements of a folder's dependency groups; a group that the folder does not declare is empty."""
    project = _read_toml(folder)
    return [
        requirement
        for name in names
        if name in project.get("dependency-groups", {})
        for requirement in nox.project.dependency_groups(project, name)
    ]


_offer_pyenv_interpreters()
MAIN = next((version for version in SUPPORTED if _is_installed(version)), SUPPORTED[0])
DISTRIBUTIONS = sorted(path.parent.name for path in ROOT.glob("wove-*/pyproject.toml"))
ADAPTERS = [name for name in DISTRIBUTIONS if name != CORE]

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False
nox.options.sessions = "servers lint types meta tests integration simulation build docs adapters".split()


def _install_core(session: nox.Session, *requirements: str) -> None:
    session.install("-e", f"./{CORE}{CORE_EXTRAS}", *requirements)


def _build_wheels(session: nox.Session, folders: list[str], target: Path) -> dict[str, Path]:
    """Build a wheel of each folder ("." is the distribution `wove`) and return the wheels by distribution name."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in folders:
        session.run(
            "python", "-m", "build", "--wheel", "--installer", "uv", "--outdir", str(target), folder, silent=True
        )
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in sorted(target.glob("*.whl"))}


def _servers() -> dict[str, str]:
    """Server programs that the adapters' tests start, by program, with the Debian package of each.

    An adapter declares them in its pyproject.toml: `[tool.wove-tests.servers]` with lines `program = "package"`.
    """
    declared: dict[str, str] = {}
    for name in ADAPTERS:
        declared |= _read_toml(ROOT / name).get("tool", {}).get("wove-tests", {}).get("servers", {})
    return declared


def _build_script(name: str) -> str | None:
    script: str | None = _read_toml(ROOT / name).get("tool", {}).get("wove-tests", {}).get("build")
    return script


def _start_builds(session: nox.Session) -> None:
    """Start what builds the servers that no package has, beside the other sessions; tests that need one wait for it.

    An adapter names its script in its pyproject.toml: `[tool.wove-tests]` with a line `build = "tests/beds/..."`. Such
    a script keeps what it has built, and does nothing where that is there.
    """
    for name in ADAPTERS:
        script = _build_script(name)
        if script is not None:
            session.log(f"Building in the background: {script}")
            command = [sys.executable, str(ROOT / script)]
            with (Path(session.create_tmp()) / f"{Path(script).stem}.log").open("wb") as log:
                # It may go on when this process has ended: a later one finds what it has built.
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


@nox.session(venv_backend="none")
def servers(session: nox.Session) -> None:
    """Install the servers of the adapters' tests: as root when CI is set, else with `nox -s servers -- --install`."""
    in_ci = bool(os.environ.get("CI")) and os.geteuid() == 0
    wanted = in_ci or "--install" in session.posargs
    _install_servers(session, wanted=wanted)
    if wanted:
        _start_builds(session)


def _install_servers(session: nox.Session, *, wanted: bool) -> None:
    # Debian installs servers into directories that an ordinary user's PATH leaves out.
    search = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])
    missing = {program: package for program, package in _servers().items() if not shutil.which(program, path=search)}
    if not missing:
        session.log("Every server that the adapters' tests need is installed.")
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(set(missing.values()))]
    if not wanted:
        session.warn(f"Missing servers: {', '.join(missing)}. Tests that need them are skipped.")
        session.warn(f"Install them with: {' '.join(command)}")
        return
    # RUNLEVEL=1 keeps the packages' scripts from starting a system-wide server; the tests start their own.
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    session.run("apt-get", "update", "-qq", external=True, env=quiet)
    session.run(*command, external=True, env=quiet, silent=True)


@nox.session(python=SUPPORTED)
def tests(session: nox.Session) -> None:
    """Run the unit tests on every supported interpreter that this machine has."""
    _install_core(session, *_groups("test"))
    session.run("pytest", *SIDE_BY_SIDE, *SECOND_CHANCE, "tests/unit", *session.posargs)


@nox.session(python=MAIN)
def integration(session: nox.Session) -> None:
    """Run weaves through the real executors, and through the adapter of the example package."""
    _install_core(session, EXAMPLE, *_groups("test"))
    # Most of its time it waits.
    session.run("pytest", "-n", "3", *SECOND_CHANCE, "tests/integration", f"{EXAMPLE}/tests", *session.posargs)


@nox.session(python=MAIN)
def simulation(session: nox.Session) -> None:
    """Let owner, workers, backend and network go wrong in a thousand ways, on a virtual clock."""
    _install_core(session, *_groups("test"))
    session.run("pytest", "-n", "2", "tests/simulation", *session.posargs)


@nox.session(python=MAIN)
def backends(session: nox.Session) -> None:
    """Run the conformance kit on what core has and write docs/backends.md. An adapter's outcomes are added by running
    its tests with WOVE_CONFORMANCE_OUTCOMES=FILE and then `python docs/backends_table.py FILE`.
    """
    _install_core(session, EXAMPLE, *_groups("test"))
    outcomes = Path(session.create_tmp()).absolute() / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    recorded = {"WOVE_CONFORMANCE_OUTCOMES": str(outcomes)}
    session.run("pytest", "tests/integration", f"{EXAMPLE}/tests", "-k", "conformance", env=recorded)
    session.run("python", "docs/backends_table.py", str(outcomes))


@nox.session(python=MAIN)
def lint(session: nox.Session) -> None:
    """Check format and style."""
    session.install(*_groups("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session(python=MAIN)
def types(session: nox.Session) -> None:
    """Check the types of the sources and the tests."""
    _install_core(session, EXAMPLE, *_groups("types"))
    session.run("mypy", f"{CORE}/src", "tests", "noxfile.py", "conftest.py", "docs/conf.py", "docs/_ext")
    session.run("mypy", "docs/backends_table.py")
    session.run("mypy", f"{EXAMPLE}/src", f"{EXAMPLE}/tests")


@nox.session(python=MAIN)
def meta(session: nox.Session) -> None:
    """Check the structure: layers, public names, import cost, what is committed."""
    _install_core(session, *_groups("test"))
    session.run("pytest", "tests/meta", *session.posargs)


@nox.session(python=MAIN)
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors and run every Python block of it."""
    _install_core(session, *_groups("docs", "test"))
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(python=MAIN)
def build(session: nox.Session) -> None:
    """Build every wheel, install them into an empty environment and list the adapters that it finds."""
    session.install("build[uv]")
    wheels = _build_wheels(session, [".", *DISTRIBUTIONS], DIST)
    empty = Path(session.create_tmp()) / "empty"
    session.run("uv", "venv", "--quiet", "--clear", "--python", MAIN, str(empty))
    # Without their dependencies all adapters fit into one environment, also the two that pin different redis clients.
    session.run("uv", "pip", "install", "--quiet", "--python", str(empty), "--no-deps", *map(str, wheels.values()))
    session.run("uv", "pip", "install", "--quiet", "--python", str(empty), str(wheels[CORE]))
    session.run(str(empty / "bin" / "python"), "-c", "import wove; print('wove', wove.__version__)", external=True)
    session.run(str(empty / "bin" / "python"), "-c", LISTING, external=True)
    every = [f"{name} @ {wheel.as_uri()}" for name, wheel in wheels.items() if name not in ("wove", "wove-arq")]
    session.run(
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        str(empty),
        "--dry-run",
        f"wove[all] @ {wheels['wove'].as_uri()}",
        *every,
    )


@nox.session(python=MAIN)
@nox.parametrize("name", [nox.param(name, id=name.removeprefix("wove-")) for name in ADAPTERS])
def adapter(session: nox.Session, name: str) -> None:
    """Check and test one adapter against wheels: core, that adapter, and nothing else of ours."""
    session.install("build[uv]")
    wheels = _build_wheels(session, [CORE, name], Path(session.create_tmp()).absolute() / "wheels")
    session.install(
        f"{CORE}[dispatch] @ {wheels[CORE].as_uri()}",
        f"{name} @ {wheels[name].as_uri()}",
        *_groups("test", "types"),
        *_groups("test", folder=ROOT / name),
    )
    # Core has its own session: what it imports is not all here.
    session.run("mypy", "--follow-imports=silent", f"{name}/src", f"{name}/tests")
    session.run("pytest", *SIDE_BY_SIDE, *SECOND_CHANCE, f"{name}/tests", *session.posargs)


@nox.session(venv_backend="none")
def adapters(session: nox.Session) -> None:
    """Run the session `adapter` for every adapter, some at a time, and print what each has printed when it ends."""

    def run(name: str) -> "subprocess.CompletedProcess[str]":
        chosen = f"adapter({name.removeprefix('wove-')})"
        command = [sys.executable, "-m", "nox", "--session", chosen, "--", *session.posargs]
        return subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    failed = []
    # Those that may have to wait for a build come later, but not last: nobody runs beside the last one.
    ready = [name for name in ADAPTERS if _build_script(name) is None]
    late = len(ready) * 2 // 3
    order = [*ready[:late], *(name for name in ADAPTERS if name not in ready), *ready[late:]]
    with ThreadPoolExecutor(ADAPTERS_AT_ONCE) as pool:
        names = {pool.submit(run, name): name for name in order}
        for running in as_completed(names):
            ended = running.result()
            print(ended.stdout, flush=True)
            if ended.returncode:
                failed.append(names[running])
    if failed:
        session.error(f"Failed: {', '.join(sorted(failed))}.")


@nox.session(python=MAIN)
def bench(session: nox.Session) -> None:
    """Run core's benchmarks; each prints a table of ratios. Not a part of CI: timings need a quiet machine."""
    _install_core(session)
    for script in ("local.py", "dispatch.py"):
        session.run("python", f"benchmarks/{script}", *session.posargs)
