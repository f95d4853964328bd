"""The programs of a Kubernetes control plane: where they are, and what to do where they are not."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.beds import kubernetes_build
from wove.testing.servers import require_program

ROOT = Path(__file__).parents[2]
ETCD, API, CONTROLLER = "etcd", "kube-apiserver", "kube-controller-manager"


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
        given = Programs(*(Path(assets, name) for name in (ETCD, API, CONTROLLER)))
        if all(os.access(path, os.X_OK) for path in given):
            return given
    etcd = Path(require_program(ETCD, install="apt-get install etcd-server"))
    folder = kubernetes_build.cache_folder()
    if not kubernetes_build.is_built(folder):
        command = f"python {Path(kubernetes_build.__file__).relative_to(ROOT)}"
        if not os.environ.get("CI") and not kubernetes_build.is_being_built(folder):
            pytest.skip(f"kube-apiserver is not built. Build it, in a few minutes, with: {command}")
        try:
            kubernetes_build.build(folder)
        except kubernetes_build.BuildFailed as error:
            pytest.fail(f"{error} (the command was: {command})", pytrace=False)
    return Programs(etcd, folder / API, folder / CONTROLLER)
