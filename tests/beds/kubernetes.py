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
import fcntl
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from tests.beds import kubernetes_build
from tests.beds.kubernetes_node import Node
from tests.beds.kubernetes_programs import API, CONTROLLER, ETCD, Programs, find_programs
from tests.beds.kubernetes_servers import Servers, answers, trusting
from wove.testing.servers import free_port

HOST = "127.0.0.1"


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
        self._servers = Servers(folder)

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
        for name in (CONTROLLER, API, ETCD):
            self._servers.end(name)

    def start_apiserver(self) -> None:
        """Start the API server and return when it is ready."""
        version = subprocess.run([str(self._program(API)), "--version"], capture_output=True, text=True, check=True)
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
        self._servers.launch(API, self._program(API), options)
        self._servers.wait(API, self._is_ready)

    def start_controller(self) -> None:
        """Start the controllers of Jobs, garbage, TTLs and nodes, and return when they are ready."""
        program = str(self._program(CONTROLLER))
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
        self._servers.launch(CONTROLLER, self._program(CONTROLLER), options)
        self._servers.wait(CONTROLLER, lambda: answers(f"https://{HOST}:{port}/healthz", context=trusting()))

    def kill_apiserver(self) -> None:
        """Kill the API server as a power failure would."""
        self._servers.end(API, signal.SIGKILL)

    def kill_controller(self) -> None:
        """Kill the controllers."""
        self._servers.end(CONTROLLER, signal.SIGKILL)

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
        self._servers.launch(ETCD, self._program(ETCD), options)
        self._servers.wait(ETCD, lambda: answers(f"{client}/health"))

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return ports

    def _program(self, name: str) -> Path:
        paths = [Path(each) for each in json.loads((self.folder / "programs.json").read_text())]
        return next(path for path in paths if path.name == name)

    def _is_ready(self) -> bool:
        try:
            # The server makes its own namespaces, in no order, after it has begun to answer.
            names = ("default", "kube-node-lease")
            return all(self.call("GET", f"/api/v1/namespaces/{name}") is not None for name in names)
        except (OSError, RuntimeError):
            return False


def _gates(version: str) -> list[str]:
    # ttlSecondsAfterFinished became a default in 1.21.
    return ["--feature-gates=TTLAfterFinished=true"] if " v1.20." in version else []


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
