"""What the test kubelet makes of a pod's container: its command line, environment and volumes."""

import base64
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Pod = dict[str, Any]
Read = Callable[[str, str], Awaitable[dict[str, Any] | None]]

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")


class SetupProblem(Exception):
    """The container cannot be set up yet: a Secret or a key is missing, or this kubelet does not know a field."""


class ContainerSetup:
    """Sets up the first container of a pod. Nothing is mounted: a mountPath in the command, or in the value of a
    variable, is replaced by the folder that stands for it.

    Args:
        pod: the pod.
        folder: for its volumes.
        read: returns an object of the pod's namespace by kind and name, or None.
    """

    def __init__(self, pod: Pod, folder: Path, read: Read) -> None:
        self._pod = pod
        self._container = pod["spec"]["containers"][0]
        self._folder = folder
        self._read = read
        self._mounted: dict[str, str] = {}

    async def prepare(self) -> tuple[list[str], dict[str, str]]:
        """Write the volumes; return the command line and the environment.

        Raises:
            SetupProblem: something is missing.
        """
        await self._make_volumes()
        env = await self._environment()
        words = [*self._container.get("command", ()), *self._container.get("args", ())]
        return [self._relocated(expand(word, env)) for word in words], env

    async def _environment(self) -> dict[str, str]:
        env = {"PATH": os.environ["PATH"], "HOSTNAME": self._pod["metadata"]["name"], "HOME": "/"}
        for source in self._container.get("envFrom", ()):
            for kind, key in (("secrets", "secretRef"), ("configmaps", "configMapRef")):
                if key in source:
                    prefix = source.get("prefix", "")
                    env |= {
                        prefix + name: value.decode() for name, value in (await self._keys(kind, source[key])).items()
                    }
        for entry in self._container.get("env", ()):
            value = await self._value_from(entry) if "valueFrom" in entry else expand(entry.get("value", ""), env)
            if value is not None:
                env[entry["name"]] = self._relocated(value)
        return env

    async def _value_from(self, entry: Mapping[str, Any]) -> str | None:
        source = entry["valueFrom"]
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for kind, key in (("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")):
            if key in source:
                values = await self._keys(kind, source[key])
                name = source[key]["key"]
                if name not in values and not source[key].get("optional"):
                    raise SetupProblem(f"couldn't find key {name} in {kind} {source[key]['name']}")
                return values[name].decode() if name in values else None
        raise SetupProblem(f"valueFrom of {entry['name']} is not known to the test kubelet")

    def _field(self, path: str) -> str:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        known = {f"metadata.{name}": metadata.get(name) for name in ("name", "namespace", "uid")}
        known |= {"spec.nodeName": spec.get("nodeName"), "status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1"}
        if path not in known:
            raise SetupProblem(f"fieldRef {path} is not known to the test kubelet")
        return str(known[path])

    async def _keys(self, kind: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
        name = reference.get("name") or reference["secretName"]
        found = await self._read(kind, name)
        if found is None:
            if reference.get("optional"):
                return {}
            raise SetupProblem(f'{kind.removesuffix("s")} "{name}" not found')
        data = found.get("data") or {}
        if kind == "secrets":
            return {key: base64.b64decode(value) for key, value in data.items()}
        return {key: str(value).encode() for key, value in data.items()}

    async def _make_volumes(self) -> None:
        volumes = {volume["name"]: volume for volume in self._pod["spec"].get("volumes", ())}
        for mount in self._container.get("volumeMounts", ()):
            folder = self._folder / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            await self._fill(volumes[mount["name"]], folder)
            self._mounted[mount["mountPath"].rstrip("/")] = str(folder / mount.get("subPath", ""))

    async def _fill(self, volume: Mapping[str, Any], folder: Path) -> None:
        if "emptyDir" in volume:
            return
        kind = next((kind for kind in ("secret", "configMap") if kind in volume), None)
        if kind is None:
            raise SetupProblem(f"the kind of volume {volume['name']} is not known to the test kubelet")
        source = volume[kind]
        values = await self._keys("secrets" if kind == "secret" else "configmaps", source)
        wanted = {item["key"]: item["path"] for item in source.get("items", ())} or {key: key for key in values}
        for key, path in wanted.items():
            if key not in values:
                raise SetupProblem(f"references non-existent key: {key}")
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(values[key])
            file.chmod(source.get("defaultMode", 0o644))

    def _relocated(self, text: str) -> str:
        for path in sorted(self._mounted, key=len, reverse=True):
            folder = self._mounted[path].replace("\\", r"\\")
            text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", folder, text)
        return text


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does: unknown names stay, ``$$`` is a dollar."""
    return _REFERENCE.sub(lambda found: "$" if found[1] == "$" else env.get(found[2], found[0]), text)
