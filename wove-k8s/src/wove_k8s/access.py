"""Where the API server is, and whose credentials are used: a kubeconfig's, this pod's, or a project's client's."""

import asyncio
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException
from yaml import YAMLError

from wove.errors import ConfigurationError
from wove_k8s.settings import Settings

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"
_PATH_VARIABLE = "KUBECONFIG"
# What a Configuration of the synchronous client has in common with one of the asynchronous one.
_SHARED = (
    "host api_key api_key_prefix username password verify_ssl ssl_ca_cert cert_file key_file tls_server_name proxy "
    "proxy_headers refresh_api_key_hook"
).split()


def make_client(settings: Settings, where: str) -> Any:
    """Return a client of Kubernetes' own package. Blocking.

    Args:
        settings: say whose configuration is used.
        where: how messages begin.

    Raises:
        ConfigurationError: there is none, or it is not usable.
    """
    try:
        return client.ApiClient(_configuration(settings))
    except ConfigurationError:
        raise
    except (
        ConfigException,
        YAMLError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ImportError,
    ) as error:
        raise ConfigurationError(
            f"{where}: {_what_failed(settings)} ({type(error).__name__}: {error}). In a pod of the cluster give "
            "'in_cluster': True; elsewhere a kubeconfig, for example "
            "'load_config_options': {'config_file': '/path/to/kubeconfig', 'context': 'staging'}."
        ) from None


def _what_failed(settings: Settings) -> str:
    if settings.batch_api is not None:
        return "batch_api leads to no configuration of a Kubernetes client"
    if not settings.load_config:
        return "the client's default configuration is not usable"
    return "no configuration of Kubernetes can be loaded"


def _configuration(settings: Settings) -> Any:
    if settings.batch_api is not None:
        found = settings.batch_api
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        return _copied(found.api_client.configuration)
    if not settings.load_config:
        return _default_configuration()
    made = client.Configuration()
    options = dict(settings.load_config_options)
    if is_in_cluster(settings):
        config.load_incluster_config(client_configuration=made, **options)
    else:
        options["config_file"] = _kubeconfig(options)
        loading = config.load_kube_config(client_configuration=made, **options)
        # It may start a program that gets credentials, and wait for it.
        asyncio.run(loading)
    return made


def _kubeconfig(options: Mapping[str, Any]) -> str:
    """Return the path, or the paths as KUBECONFIG joins them, of kubeconfigs of which one is there."""
    paths = str(options.get("config_file") or os.environ.get(_PATH_VARIABLE) or Path.home() / ".kube" / "config")
    if not any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep)):
        raise FileNotFoundError(f"there is no kubeconfig at {paths}")
    return paths


def _default_configuration() -> Any:
    from kubernetes.client import Configuration as OfSynchronousClient

    default = client.Configuration.get_default_copy()
    is_set = default.host != client.Configuration().host
    return _copied(default if is_set else OfSynchronousClient.get_default_copy())


def _copied(configuration: Any) -> Any:
    """Return a configuration of our own: the project's client may be a synchronous one, or live on another loop."""
    made = client.Configuration()
    for name in _SHARED:
        if hasattr(configuration, name):
            value = getattr(configuration, name)
            setattr(made, name, dict(value) if isinstance(value, dict) else value)
    return made


def is_in_cluster(settings: Settings) -> bool:
    """Tell whether the configuration is that of the pod that this process runs in."""
    if settings.in_cluster is not None:
        return settings.in_cluster
    given = "config_file" in settings.load_config_options or "context" in settings.load_config_options
    return not given and _HOST_VARIABLE in os.environ and (_SERVICE_ACCOUNT / "token").exists()


def find_namespace(settings: Settings) -> str:
    """Return the namespace of the settings, of this pod, or of the kubeconfig's context. Blocking."""
    if settings.namespace is not None:
        return settings.namespace
    try:
        if settings.batch_api is None and settings.load_config:
            if is_in_cluster(settings):
                return (_SERVICE_ACCOUNT / "namespace").read_text().strip()
            contexts, current = config.list_kube_config_contexts(_kubeconfig(settings.load_config_options))
            wanted = settings.load_config_options.get("context")
            chosen = next((each for each in contexts if each["name"] == wanted), current)
            return str(chosen["context"].get("namespace") or "default")
    except (ConfigException, YAMLError, OSError, LookupError, TypeError):
        pass  # Making the client will say what is wrong.
    return "default"
