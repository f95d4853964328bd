"""Whose API server it is, and what is needed there: kubeconfigs, clients of the project, rights."""

import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_backend import KubernetesDeployment

from wove.errors import ConfigurationError
from wove.testing import tasks
from wove.testing.servers import free_port
from wove.testing.stage import Stage
from wove_k8s import KubernetesJobsAdapter

README = Path(__file__).parents[1] / "README.md"
IMAGE = "example.org/worker:1"


@asynccontextmanager
async def started(**config: Any) -> AsyncIterator[KubernetesJobsAdapter]:
    given = {"image": IMAGE, **config}
    where = "http://127.0.0.1:1/wove/events/x"
    adapter = KubernetesJobsAdapter(name="kubernetes_jobs", config=given, callback_url=where, run_config={})
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def test_the_role_in_the_readme_suffices(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = deployment.cluster.write_kubeconfig(tmp_path / "limited", user="limited")
    (text,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    group = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{deployment.namespace}"
    for document in yaml.safe_load_all(text):
        document["metadata"]["namespace"] = deployment.namespace
        if document["kind"] == "RoleBinding":
            document["subjects"] = [{"kind": "User", "name": "limited", "apiGroup": "rbac.authorization.k8s.io"}]
        deployment.cluster.call("POST", f"{group}/{document['kind'].lower()}s", document)
    deployment.ensure_worker()
    with Stage(deployment, seconds=60.0) as stage:
        stage.configure(load_config_options={"config_file": str(kubeconfig)})
        assert stage.call(tasks.add, left=1, right=2) == 3
        doomed = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
        deployment.kill_process(stage.wait_until_known(tasks.wait_at, "doomed").pid)
        assert getattr(doomed.failure(60.0), "exit_code", None) == 137
        unwanted = stage.begin(tasks.wait_at_later, board=stage.board.address, label="unwanted")
        (visit,) = stage.board.wait_for("unwanted", seconds=60.0)
        unwanted.abandon()
        stage.board.wait_for_end(visit, seconds=60.0)


async def test_missing_rights_are_named(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = deployment.cluster.write_kubeconfig(tmp_path / "limited", user="limited")
    with pytest.raises(
        ConfigurationError, match=r"lack rights in the namespace 'elsewhere'.*README has a Role"
    ) as caught:
        async with started(namespace="elsewhere", load_config_options={"config_file": str(kubeconfig)}):
            pass
    assert 'cannot list resource "jobs"' in str(caught.value) or 'cannot list resource "pods"' in str(caught.value)


async def test_credentials_that_are_not_accepted_are_named(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "stale"
    text = deployment.cluster.kubeconfig.read_text()
    kubeconfig.write_text(re.sub(r'"token": "\w+"', '"token": "hunter2"', text))
    with pytest.raises(ConfigurationError, match="does not accept the credentials") as caught:
        async with started(load_config_options={"config_file": str(kubeconfig)}):
            pass
    assert "hunter2" not in str(caught.value)


async def test_an_api_server_that_is_not_there_is_named_without_credentials(
    deployment: KubernetesDeployment, tmp_path: Path
) -> None:
    port = free_port()
    kubeconfig = deployment.cluster.write_kubeconfig(tmp_path / "elsewhere", port=port)
    before = time.monotonic()
    with pytest.raises(
        ConnectionError, match=rf"API server at https://127\.0\.0\.1:{port} cannot be reached"
    ) as caught:
        async with started(load_config_options={"config_file": str(kubeconfig)}):
            pass
    assert "See to it that the cluster runs" in str(caught.value)
    assert time.monotonic() - before < 8.0


async def test_a_certificate_that_nobody_has_signed_is_named(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "unsigned"
    text = deployment.cluster.kubeconfig.read_text()
    kubeconfig.write_text(re.sub(r'"certificate-authority-data": "[^"]+",?', "", text).replace(", }", "}"))
    with pytest.raises(ConnectionError, match="Its certificate is not one that the kubeconfig's certificate-authority"):
        async with started(load_config_options={"config_file": str(kubeconfig)}):
            pass


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"load_config_options": {"config_file": "/nowhere/kubeconfig"}},
            "no configuration of Kubernetes can be loaded (FileNotFoundError: there is no kubeconfig at /nowhere/",
        ),
        (
            {"load_config_options": {"config_file": __file__, "contxt": "staging"}},
            "unexpected keyword argument 'contxt'",
        ),
        ({"in_cluster": True}, "no configuration of Kubernetes can be loaded"),
        ({"batch_api": "nowhere.at_all:api"}, "batch_api leads to no configuration"),
        ({"job_factory": "nowhere.at_all:make"}, "job_factory: 'nowhere.at_all:make' cannot be imported"),
        ({"job_factory": "os:sep"}, "job_factory: 'os:sep' is not a function"),
    ],
)
async def test_what_leads_nowhere_is_an_error_at_start(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        async with started(**config):
            pass


async def test_a_way_back_that_no_pod_can_take_is_refused(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "remote"
    text = deployment.cluster.kubeconfig.read_text()
    kubeconfig.write_text(re.sub(r"https://127.0.0.1:[0-9]+", "https://kubernetes.example.org", text))
    with pytest.raises(ConfigurationError, match=r"pods would post their results to themselves.*'callback_url': 'http"):
        async with started(load_config_options={"config_file": str(kubeconfig)}):
            pass


async def test_in_a_pod_its_service_account_is_used(
    deployment: KubernetesDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.aio.config import incluster_config

    user = json.loads(deployment.cluster.kubeconfig.read_text())["users"][0]["user"]
    (tmp_path / "token").write_text(user["token"])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(deployment.cluster.folder / "authority.pem"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(deployment.cluster.port))
    async with started(in_cluster=True, namespace=deployment.namespace) as adapter:
        await adapter.submit({"run_id": "inside-1", "task_name": "inside"}, {"run_id": "inside-1"})
    assert any("inside" in name for name in deployment.leftovers())


async def test_credentials_that_have_run_out_are_renewed(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    config = json.loads(deployment.cluster.kubeconfig.read_text())
    token = config["users"][0]["user"]["token"]
    # A plugin, as clouds have them, whose first token is not good any more.
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib\n"
        f"used = pathlib.Path({str(tmp_path / 'used')!r})\n"
        f"token = {token!r} if used.exists() else 'stale'\n"
        "used.touch()\n"
        "status = {'token': token}\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1beta1', 'kind': 'ExecCredential', "
        "'status': status}))\n"
    )
    plugin.chmod(0o755)
    execute = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(plugin), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": execute}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    options = {"config_file": str(tmp_path / "kubeconfig")}
    async with started(load_config_options=options, namespace=deployment.namespace) as adapter:
        await adapter.submit({"run_id": "renewed-1", "task_name": "renewed"}, {"run_id": "renewed-1"})
    assert any("renewed" in name for name in deployment.leftovers())


@pytest.mark.parametrize("kind", ["synchronous", "asynchronous"])
async def test_a_client_of_the_project_lends_its_configuration(deployment: KubernetesDeployment, kind: str) -> None:
    import kubernetes
    import kubernetes.aio.client
    import kubernetes.aio.config

    path = str(deployment.cluster.kubeconfig)
    if kind == "synchronous":
        made = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(path, client_configuration=made)
        batch_api = kubernetes.client.BatchV1Api(kubernetes.client.ApiClient(made))
    else:
        made = kubernetes.aio.client.Configuration()
        await kubernetes.aio.config.load_kube_config(path, client_configuration=made)
        batch_api = kubernetes.aio.client.BatchV1Api(kubernetes.aio.client.ApiClient(made))
    async with started(batch_api=batch_api, namespace=deployment.namespace) as adapter:
        await adapter.submit({"run_id": "report-1", "task_name": "report"}, {"run_id": "report-1"})
    assert any("report" in name for name in deployment.leftovers())
    closing = batch_api.api_client.close()
    if closing is not None:
        await closing


async def test_without_loading_the_clients_own_default_is_used(
    deployment: KubernetesDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kubernetes

    made = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(deployment.cluster.kubeconfig), client_configuration=made)
    monkeypatch.setattr(kubernetes.client.Configuration, "_default", made)
    async with started(load_config=False, namespace=deployment.namespace):
        pass


async def test_the_namespace_is_that_of_the_context(deployment: KubernetesDeployment, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    text = deployment.cluster.kubeconfig.read_text()
    place = f'"namespace": "{deployment.namespace}", "user": "user"'
    kubeconfig.write_text(text.replace('"user": "user"', place))
    async with started(load_config_options={"config_file": str(kubeconfig)}) as adapter:
        await adapter.submit({"run_id": "here-1", "task_name": "here"}, {"run_id": "here-1"})
    assert any("here" in name for name in deployment.leftovers())
