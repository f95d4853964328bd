"""A real Kubernetes for tests: etcd, kube-apiserver and kube-controller-manager on loopback, and `kubelet` for nodes.

As a program, it is a cluster with one node, for examples, until Ctrl-C; it builds what is missing::

    pip install aiohttp trustme pytest
    python -m tests.beds.kubernetes     # prints what to set

All state is below one folder. The programs come from ``KUBEBUILDER_ASSETS`` where that is set and has all three, else
from where `kubernetes_build` puts them; etcd is Debian's. What this cannot show: a scheduler, images, networks of pods,
anything newer than Kubernetes 1.20 where the programs are Debian's.
"""

import argparse
import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from tests.beds import kubernetes_build
from tests.beds.kubernetes_node import Node
from wove.testing.servers import free_port, require_program

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
_ETCD, _API, _CONTROLLER = "etcd", "kube-apiserver", "kube-controller-manager"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


class Programs(NamedTuple):
    """Paths of the three programs."""

    etcd: Path
    apiserver: Path
    controller: Path


def find_programs() -> Programs:
    """Return the programs. Waits for a build that is under way.

    Where they are missing the calling test is skipped, with the command that builds them; when ``CI`` is set they are
    built now, and a build that fails fails the test.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        given = Programs(*(Path(assets, name) for name in (_ETCD, _API, _CONTROLLER)))
        if all(os.access(path, os.X_OK) for path in given):
            return given
    etcd = Path(require_program(_ETCD, install="apt-get install etcd-server"))
    folder = kubernetes_build.cache_folder()
    if not kubernetes_build.is_built(folder):
        command = f"python {Path(kubernetes_build.__file__).relative_to(ROOT)}"
        if not os.environ.get("CI") and not kubernetes_build.is_being_built(folder):
            pytest.skip(f"kube-apiserver is not built. Build it, in a few minutes, with: {command}")
        try:
            kubernetes_build.build(folder)
        except kubernetes_build.BuildFailed as error:
            pytest.fail(f"{error} (the command was: {command})", pytrace=False)
    return Programs(etcd, folder / _API, folder / _CONTROLLER)


class Cluster:
    """One control plane. Whoever knows its folder can use and stop it.

    Attributes:
        kubeconfig: of a user who may do everything; JSON.

    Args:
        folder: for all of its state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"

    @property
    def port(self) -> int:
        """Where the API server listens."""
        return int(self._ports()["api"])

    # --- its life ---

    def start(self, programs: Programs | None = None, *, node_grace_seconds: int = 6) -> None:
        """Start what does not run, and return when it is ready.

        Args:
            programs: the three programs; found where omitted.
            node_grace_seconds: for how long a node may be silent until its pods are deleted.
        """
        programs = programs or find_programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.kubeconfig.exists():
            self._prepare()
        (self.folder / "programs.json").write_text(json.dumps([str(path) for path in programs]))
        (self.folder / "options.json").write_text(json.dumps({"node_grace_seconds": node_grace_seconds}))
        self._start_etcd()
        self.start_apiserver()
        self.start_controller()

    def stop(self) -> None:
        """End everything."""
        for name in (_CONTROLLER, _API, _ETCD):
            self._end(name)

    def start_apiserver(self) -> None:
        """Start the API server and return when it is ready."""
        version = subprocess.run([str(self._program(_API)), "--version"], capture_output=True, text=True, check=True)
        ports = self._ports()
        options = [
            f"--etcd-servers=http://{HOST}:{ports['etcd']}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={ports['api']}",
            f"--tls-cert-file={self.folder}/server.pem",
            f"--tls-private-key-file={self.folder}/server.pem",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder}/server.pem",
            f"--service-account-key-file={self.folder}/server.pem",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder}",
            # A node that is gone for good gives up its pods soon.
            "--default-not-ready-toleration-seconds=2",
            "--default-unreachable-toleration-seconds=2",
            *_gates(version.stdout),
        ]
        self._launch(_API, options)
        self._wait(_API, self._is_ready)

    def start_controller(self) -> None:
        """Start the controllers of Jobs, garbage, TTLs and nodes, and return when they are ready."""
        program = str(self._program(_CONTROLLER))
        known = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        port = self._ports()["controller"]
        grace = json.loads((self.folder / "options.json").read_text())["node_grace_seconds"]
        options = [
            f"--kubeconfig={self.kubeconfig}",
            "--controllers=job,garbagecollector,ttl-after-finished,nodelifecycle",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={port}",
            f"--cert-dir={self.folder}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={grace}s",
            *_gates(version),
            # Old versions also listen without TLS, on every interface.
            *(["--port=0"] if "--port int" in known else []),
        ]
        self._launch(_CONTROLLER, options)
        self._wait(_CONTROLLER, lambda: _answers(f"https://{HOST}:{port}/healthz", context=_trusting()))

    def kill_apiserver(self) -> None:
        """Kill the API server as a power failure would."""
        self._end(_API, signal.SIGKILL)

    def kill_controller(self) -> None:
        """Kill the controllers."""
        self._end(_CONTROLLER, signal.SIGKILL)

    # --- using it ---

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API server, as the administrator; return its answer, or None where there is no such object."""
        config = json.loads(self.kubeconfig.read_text())
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        token = config["users"][0]["user"]["token"]
        request = urllib.request.Request(
            f"https://{HOST}:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)),
        )
        try:
            with opener.open(request, timeout=30.0) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise RuntimeError(f"{method} {path}: {error.code}: {error.read().decode()[:500]}") from None

    def make_namespace(self, name: str) -> None:
        """Create a namespace."""
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def write_kubeconfig(self, path: Path, *, port: int | None = None, user: str = "admin") -> Path:
        """Write a kubeconfig for another port, behind which the API server is, or for another user.

        Args:
            path: the file.
            port: None: the API server's own.
            user: ``admin``, or ``limited``: one who may do only what RBAC says.
        """
        config = json.loads(self.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://{HOST}:{port or self.port}"
        config["users"][0]["user"]["token"] = json.loads((self.folder / "users.json").read_text())[user]
        path.write_text(json.dumps(config))
        return path

    # --- how ---

    def _prepare(self) -> None:
        authority = trustme.CA(organization_name="wove-test")
        server = authority.issue_cert(HOST, "localhost", "kubernetes", "kubernetes.default.svc")
        authority.cert_pem.write_to_path(str(self.folder / "authority.pem"))
        server.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))
        (self.folder / "server.pem").chmod(0o600)
        users = {"admin": secrets.token_hex(16), "limited": secrets.token_hex(16)}
        (self.folder / "users.json").write_text(json.dumps(users))
        lines = [f"{users['admin']},admin,u1,system:masters", f"{users['limited']},limited,u2"]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        ports = {name: free_port() for name in ("api", "etcd", "peer", "controller")}
        (self.folder / "ports.json").write_text(json.dumps(ports))
        certificate = base64.b64encode(authority.cert_pem.bytes()).decode()
        cluster = {"server": f"https://{HOST}:{ports['api']}", "certificate-authority-data": certificate}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "wove-test", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": users["admin"]}}],
            "contexts": [{"name": "wove-test", "context": {"cluster": "wove-test", "user": "user"}}],
            "current-context": "wove-test",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def _start_etcd(self) -> None:
        ports = self._ports()
        client, peer = f"http://{HOST}:{ports['etcd']}", f"http://{HOST}:{ports['peer']}"
        options = [
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]
        self._launch(_ETCD, options)
        self._wait(_ETCD, lambda: _answers(f"{client}/health"))

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return ports

    def _program(self, name: str) -> Path:
        paths = [Path(each) for each in json.loads((self.folder / "programs.json").read_text())]
        return next(path for path in paths if path.name == name)

    def _launch(self, name: str, options: list[str]) -> None:
        if self._is_alive(name):
            return
        # Debian's etcd 3.4 refuses to run on arm64 without the variable.
        env = {**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self._program(name)), *options],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        _children[process.pid] = process

    def _end(self, name: str, number: int = signal.SIGTERM) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while self._is_alive(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid(name), number if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.05)
            number = 0 if time.monotonic() < deadline else signal.SIGKILL

    def _pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def _is_alive(self, name: str) -> bool:
        try:
            pid = self._pid(name)
        except (OSError, ValueError):
            return False
        if pid in _children:
            return _children[pid].poll() is None
        try:
            # A process id may have become somebody else's.
            return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def _is_ready(self) -> bool:
        try:
            # The server makes its own namespaces, in no order, after it has begun to answer.
            names = ("default", "kube-node-lease")
            return all(self.call("GET", f"/api/v1/namespaces/{name}") is not None for name in names)
        except (OSError, RuntimeError):
            return False

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            if not self._is_alive(name) or time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} is not ready. The end of its log:\n{log}")
            time.sleep(0.1)


# The servers that this process has started, so that they are reaped.
_children: dict[int, "subprocess.Popen[bytes]"] = {}


def _gates(version: str) -> list[str]:
    # ttlSecondsAfterFinished became a default in 1.21.
    return ["--feature-gates=TTLAfterFinished=true"] if " v1.20." in version else []


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _answers(url: str, *, context: ssl.SSLContext | None = None) -> bool:
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def shared_cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster that the processes of one test run share: the first one starts it, the last one stops it.

    Args:
        folder: the same for all of them.
    """
    programs = find_programs()
    cluster = Cluster(folder)
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    with _locked(folder):
        mine.touch()
        cluster.start(programs)
    try:
        yield cluster
    finally:
        with _locked(folder):
            mine.unlink()
            if not any(Path(f"/proc/{each.name}").exists() for each in users.iterdir()):
                cluster.stop()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Run a cluster with one node, for the namespace ``default``."""
    parser = argparse.ArgumentParser(description="A small Kubernetes on this machine; pods are processes.")
    parser.add_argument("--folder", type=Path, help="for all of its state (default: a temporary one)")
    options = parser.parse_args()
    # A shell starts a background job with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # What "python" means in a container here.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        print("Building kube-apiserver, unless it is there; this takes some minutes.", flush=True)
        kubernetes_build.build(kubernetes_build.cache_folder())
    with tempfile.TemporaryDirectory() as temporary:
        cluster = Cluster(options.folder or Path(temporary, "kubernetes"))
        node = None
        try:
            cluster.start()
            node = Node(cluster, "default")
            node.ensure()
            print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            if node is not None:
                node.close()
            cluster.stop()


if __name__ == "__main__":
    main()
