"""Builds the programs of a Kubernetes control plane from Debian's source package, once for a user and machine.

No package index and no Debian package has a kube-apiserver, but the source package ``kubernetes`` of Debian 12 (1.20.2)
brings everything that it needs to be compiled. It takes a few minutes on two cores, about 2 GB while it lasts and
210 MB afterwards::

    python tests/beds/kubernetes_build.py      # prints the folder of the programs

The folder is ``~/.cache/wove-tests/kubernetes`` (or below ``XDG_CACHE_HOME``). Nothing has to be installed as root but
the compiler: ``apt-get install golang-go etcd-server``. Only the standard library is needed, and nothing of Wove.
"""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("kube-apiserver", "kube-controller-manager")
INSTALL = "apt-get install golang-go etcd-server"

_TREE = Path("src/k8s.io/kubernetes")
# Of Debian's Go packages, those whose vendored version does not work with a compiler of today. The vendored reflect2
# calls reflect.mapiterinit without its third argument, which Go has written through since 1.18: the servers would
# overwrite their own memory. https://github.com/modern-go/reflect2/issues/19
_REPLACED = {"golang-github-modern-go-reflect2-dev": "github.com/modern-go/reflect2"}
_OPENAPI = "k8s.io/kubernetes/pkg/generated/openapi"


class BuildFailed(RuntimeError):
    """A step failed; the message names its log."""


def cache_folder() -> Path:
    """Return where the programs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "wove-tests", "kubernetes")


def is_built(folder: Path) -> bool:
    """Tell whether all programs are there. They appear complete, one by one."""
    return all(os.access(folder / program, os.X_OK) for program in PROGRAMS)


def is_being_built(folder: Path) -> bool:
    """Tell whether some process is at it now."""
    try:
        with _lock(folder, wait=False):
            return False
    except BlockingIOError:
        return True


def build(folder: Path) -> Path:
    """Return the folder of the programs, built if they are not there. Waits for another process that is at it.

    Raises:
        BuildFailed: the compiler is missing, or a step failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, wait=True):
        if not is_built(folder):
            work = folder / "build"
            shutil.rmtree(work, ignore_errors=True)
            _Build(work, folder / "build.log").run()
            for program in PROGRAMS:
                (work / "bin" / program).replace(folder / program)
            _remove(work)
    return folder


@contextmanager
def _lock(folder: Path, *, wait: bool) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove(folder: Path) -> None:
    # Go writes parts of its cache without permission to write.
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o755)
    shutil.rmtree(folder)


class _Build:
    """One build.

    Args:
        work: a folder that does not exist yet: GOPATH, compiler cache and downloads.
        log: what the steps print.
    """

    def __init__(self, work: Path, log: Path) -> None:
        self._work = work
        self._log = log
        self._tree = work / _TREE
        go = next((path for path in ("/usr/lib/go-1.19/bin/go", "/usr/lib/go/bin/go") if os.path.exists(path)), None)
        self._go = go or shutil.which("go")
        self._env = {
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": str(work),
            "GOCACHE": str(work / "gocache"),
            "GOFLAGS": "",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }

    def run(self) -> None:
        """Fetch the source, then compile."""
        if self._go is None:
            raise BuildFailed(f"There is no Go compiler. Install it with: {INSTALL}")
        self._log.write_bytes(b"")
        self._tree.mkdir(parents=True)
        self._fetch()
        version = self._unpack()
        self._generate_openapi()
        targets = [f"./cmd/{program}" for program in PROGRAMS]
        (self._work / "bin").mkdir()
        # What the clouds' own controllers need is a third of the work, and there is no cloud here.
        options = ["-tags", "providerless", "-ldflags", _link_flags(version), "-o", f"{self._work}/bin/"]
        # Whatever else runs meanwhile comes first.
        self._do("nice", "-n", "5", self._go, "build", *options, *targets)

    def _do(self, *command: str, cwd: Path | None = None) -> None:
        with self._log.open("ab") as log:
            log.write(f"+ {' '.join(command)[:500]}\n".encode())
            log.flush()
            done = subprocess.run(
                command,
                check=False,
                cwd=cwd or self._tree,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if done.returncode:
            raise BuildFailed(f"{command[0]} failed with exit code {done.returncode}; see {self._log}")

    def _fetch(self) -> None:
        """Download the packages, without touching the system's lists of packages."""
        sources = self._work / "sources"
        (self._work / "lists" / "partial").mkdir(parents=True)
        sources.mkdir()
        _write_sources(sources)
        apt = ["apt-get", "-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={sources}"]
        apt += ["-o", f"Dir::State::Lists={self._work}/lists", "-o", "APT::Sandbox::User="]
        self._do(*apt, "update", cwd=self._work)
        self._do(*apt, "source", "--download-only", "kubernetes", cwd=self._work)
        self._do(*apt, "download", *_REPLACED, cwd=self._work)

    def _unpack(self) -> str:
        """Unpack the upstream source, and return its version. Debian's patches touch only kubectl."""
        (tarball,) = self._work.glob("kubernetes_*.orig.tar.*")
        self._do("tar", "-xf", str(tarball), "-C", str(self._tree), "--strip-components=1")
        if not (self._tree / "vendor/k8s.io/kube-openapi").is_dir():
            raise BuildFailed("This release's kubernetes source lacks its vendor tree; set KUBEBUILDER_ASSETS instead.")
        for package, path in _REPLACED.items():
            (archive,) = self._work.glob(f"{package}_*.deb")
            self._do("dpkg", "-x", str(archive), str(self._work / package))
            shutil.rmtree(self._tree / "vendor" / path)
            shutil.copytree(self._work / package / "usr/share/gocode/src" / path, self._tree / "vendor" / path)
        found = re.search(r"(\d+\.\d+\.\d+)", tarball.name.rpartition("really")[2])
        if found is None:
            raise BuildFailed(f"The version cannot be told from {tarball.name}.")
        return found[1]

    def _generate_openapi(self) -> None:
        """Write the one generated file that the source lacks, as its ``Makefile.generated_files`` would."""
        generator = str(self._work / "openapi-gen")
        self._do(str(self._go), "build", "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen")
        folders = ",".join(f"k8s.io/kubernetes/{folder}" for folder in self._openapi_folders())
        header = "vendor/k8s.io/code-generator/hack/boilerplate.go.txt"
        options = ["-p", _OPENAPI, "-O", "zz_generated.openapi", "-h", header, "-r", f"{self._work}/violations.txt"]
        self._do(generator, "--logtostderr", "-i", folders, *options)

    def _openapi_folders(self) -> list[str]:
        found = set()
        for part in ("cmd", "pkg", "vendor/k8s.io"):
            # Most of vendor/k8s.io are links into staging/.
            for folder, _, names in os.walk(self._tree / part, followlinks=True):
                place = Path(folder).relative_to(self._tree).as_posix()
                unfit = place.startswith(("vendor/k8s.io/code-generator", "vendor/k8s.io/sample-apiserver"))
                if unfit or "testdata" in place.split("/"):
                    continue
                files = (Path(folder, name) for name in names if name.endswith(".go") and not name.endswith("_test.go"))
                if any(re.search(r"(?m)^// *\+k8s:openapi-gen=", file.read_text(errors="replace")) for file in files):
                    found.add(place)
        return sorted(found)


def _write_sources(folder: Path) -> None:
    """Write the system's own package sources with those of source packages beside them, for this release only."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if not codename or not path.is_file():
            continue
        if path.suffix == ".sources":
            stanzas = [each for each in re.split(r"\n\s*\n", path.read_text()) if _is_main(each, codename)]
            both = [re.sub(r"(?m)^Types:.*$", "Types: deb deb-src", each) for each in stanzas]
            (folder / path.name).write_text("\n\n".join(both) + "\n")
        elif path.suffix == ".list":
            lines = [line for line in path.read_text().splitlines() if line.startswith("deb ") and " main" in line]
            lines = [line for line in lines if re.search(rf"[ /]{codename}[ /-]", line)]
            (folder / path.name).write_text("\n".join([*lines, *(f"deb-src{line[3:]}" for line in lines)]) + "\n")


def _is_main(stanza: str, codename: str) -> bool:
    suites = re.search(r"(?m)^Suites:(.*)$", stanza)
    components = re.search(r"(?m)^Components:(.*)$", stanza)
    is_ours = suites is not None and any(suite.startswith(codename) for suite in suites[1].split())
    return is_ours and components is not None and "main" in components[1].split()


def _link_flags(version: str) -> str:
    major, minor, _ = version.split(".")
    flags = ["-s", "-w"]
    for place in ("k8s.io/kubernetes/vendor/k8s.io/component-base", "k8s.io/kubernetes/vendor/k8s.io/client-go/pkg"):
        values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        for name, value in values.items():
            flags += ["-X", f"{place}/version.{name}={value}"]
    return " ".join(flags)


def main() -> int:
    """Build, and print the folder."""
    parser = argparse.ArgumentParser(description="Build kube-apiserver and kube-controller-manager for the tests.")
    parser.add_argument("folder", nargs="?", type=Path, default=cache_folder(), help="(default: %(default)s)")
    try:
        print(build(parser.parse_args().folder))
    except BuildFailed as error:
        print(f"kubernetes_build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
