"""A node for tests: pods of one namespace become local processes, and everything else of Kubernetes is real.

::

    python -m tests.beds.kubelet KUBECONFIG NAMESPACE FOLDER [--node NAME] [--idle]

It registers a node that gives signs of life, does the scheduler's part for that namespace, runs the first container of
each pod as a process with the pod's environment and volumes, and reports what becomes of it. It prints "ready" once it
watches. SIGTERM ends all pods as a node's orderly shutdown does, and then the kubelet. Killed, it leaves its processes
to whoever killed it; a later one with the same name reports them as lost. Not there: images, init containers, restarts,
probes and hooks, limits, logs for the API server (they are in FOLDER/logs).
Pods can ask for faults: `kubelet_faults` has them.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from tests.beds.kubelet_api import Api, ApiError, now
from tests.beds.kubelet_containers import ContainerSetup, Pod, SetupProblem
from tests.beds.kubelet_faults import fault_of, seconds_to_live
from tests.beds.kubelet_node import NodeObject
from tests.beds.kubelet_statuses import Statuses

_RETRY_SECONDS = 0.2


def kill_group(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a process and its children; nothing happens when they are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class Kubelet:
    """Runs the pods of one namespace. Everything happens on one loop.

    Args:
        api: the API server.
        node: the node's name.
        namespace: whose pods it runs.
        folder: for logs, volumes and the list of processes.
        relist_seconds: how often it looks whether a process has ended; 0: it is told.
        places: how many pods have room at a time.
    """

    def __init__(
        self, api: Api, node: str, namespace: str, folder: Path, *, relist_seconds: float = 0.0, places: int = 1000
    ) -> None:
        self._api = api
        self._node = node
        self._namespace = namespace
        self._folder = folder
        self._relist_seconds = relist_seconds
        self._places = asyncio.Semaphore(places)
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._statuses = Statuses(api, self._pods)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        for name in ("logs", "volumes", "pids"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # --- watching ---

    async def follow(self) -> None:
        """Follow the pods for ever."""
        announced = False
        while True:
            try:
                listed = await self._api.call("GET", self._pods)
                self._compare({pod["metadata"]["uid"] for pod in listed["items"]})
                for pod in listed["items"]:
                    self._see("ADDED", pod)
                if not announced:
                    announced = True
                    print("ready", flush=True)
                async for kind, pod in self._api.watch(self._pods, listed["metadata"]["resourceVersion"]):
                    if kind == "ERROR":
                        break
                    self._see(kind, pod)
            except (ApiError, aiohttp.ClientError, OSError, ValueError) as error:
                print(f"kubelet: {error!r}", file=sys.stderr, flush=True)
            await asyncio.sleep(_RETRY_SECONDS)

    def _compare(self, there: set[str]) -> None:
        for uid in self._running.keys() - there:
            self._forget(uid)

    def _see(self, kind: str, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._forget(uid)
        elif pod["metadata"].get("deletionTimestamp"):
            if uid not in self._stopping:
                self._stopping.add(uid)
                _ = self._spawn(self._stop(pod))
        elif uid not in self._running and self._is_ours(pod):
            phase = pod.get("status", {}).get("phase") or "Pending"
            if phase == "Pending":
                self._running[uid] = self._spawn(self._guard(pod))
            elif phase == "Running":
                self._running[uid] = self._spawn(self._statuses.report_lost(pod))

    def _is_ours(self, pod: Pod) -> bool:
        return pod["spec"].get("nodeName") in (None, self._node)

    def _forget(self, uid: str) -> None:
        self._stopping.discard(uid)
        task = self._running.pop(uid, None)
        if uid in self._processes:  # Deleted without grace: nobody waits for it.
            kill_group(self._processes[uid], signal.SIGKILL)
        elif task:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- one pod ---

    async def _guard(self, pod: Pod) -> None:
        try:
            await self._run(pod)
        except Exception as error:  # What goes wrong with one pod must not end the others.
            print(f"kubelet: pod {pod['metadata']['name']}: {error!r}", file=sys.stderr, flush=True)

    async def _run(self, pod: Pod) -> None:
        if fault_of(pod) == "unschedulable":
            problem = {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}
            await self._statuses.report(pod, "Pending", scheduled={"status": "False", **problem})
            return
        await self._bind(pod)
        if fault_of(pod) == "image-pull":
            await self._fail_to_pull(pod)
            return
        async with self._places:
            words, env = await self._set_up(pod)
            await self._execute(pod, words, env)

    async def _set_up(self, pod: Pod) -> tuple[list[str], dict[str, str]]:
        """Return the command line and the environment; wait, as a kubelet does, for what is not there yet."""
        told = None
        while True:
            volumes = self._folder / "volumes" / pod["metadata"]["uid"]
            try:
                return await ContainerSetup(pod, volumes, self._read).prepare()
            except SetupProblem as problem:
                if str(problem) != told:
                    told = str(problem)
                    waiting = {"reason": "CreateContainerConfigError", "message": told}
                    await self._statuses.report(pod, "Pending", {"waiting": waiting})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _bind(self, pod: Pod) -> None:
        if pod["spec"].get("nodeName"):
            return
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        try:
            await self._api.call("POST", f"{self._pods}/{name}/binding", binding)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _fail_to_pull(self, pod: Pod) -> None:
        image = pod["spec"]["containers"][0]["image"]
        for reason, text in (
            ("ErrImagePull", f'failed to pull and unpack image "{image}": not found'),
            ("ImagePullBackOff", f'Back-off pulling image "{image}"'),
        ):
            await self._statuses.report(pod, "Pending", {"waiting": {"reason": reason, "message": text}})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._api.call("GET", f"/api/v1/namespaces/{self._namespace}/{kind}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    async def _execute(self, pod: Pod, words: list[str], env: dict[str, str]) -> None:
        uid, started = pod["metadata"]["uid"], now()
        path = self._folder / "logs" / f"{pod['metadata']['name']}.log"
        with path.open("wb") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    env=env,
                    cwd=pod["spec"]["containers"][0].get("workingDir"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except (OSError, TypeError) as error:
                end = {"exitCode": 128, "reason": "StartError", "message": str(error), "finishedAt": now()}
                await self._statuses.report(pod, "Failed", {"terminated": end})
                return
        self._processes[uid] = process
        listed = self._folder / "pids" / str(process.pid)
        listed.touch()
        try:
            await self._statuses.report(pod, "Running", {"running": {"startedAt": started}})
            await self._wait(pod, process)
            await self._relist()
        finally:
            kill_group(process, signal.SIGKILL)  # Children that outlive their container.
            await process.wait()
            listed.unlink(missing_ok=True)
            self._processes.pop(uid, None)
        shutil.rmtree(self._folder / "volumes" / uid, ignore_errors=True)
        await self._statuses.report_end(pod, process.returncode or 0, started, path)

    async def _wait(self, pod: Pod, process: asyncio.subprocess.Process) -> None:
        try:
            await asyncio.wait_for(process.wait(), seconds_to_live(pod))
        except TimeoutError:
            kill_group(process, signal.SIGKILL)
            await process.wait()

    async def _relist(self) -> None:
        """Wait until the kubelet looks again: all ends are seen at the same moments."""
        if self._relist_seconds:
            await asyncio.sleep(-asyncio.get_running_loop().time() % self._relist_seconds)

    async def _end(self, process: asyncio.subprocess.Process, grace: float) -> None:
        """TERM, at most so many seconds, KILL."""
        kill_group(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            kill_group(process, signal.SIGKILL)
            await process.wait()

    async def _stop(self, pod: Pod) -> None:
        """Carry out a deletion: end the process, let its last status out, remove the pod."""
        uid = pod["metadata"]["uid"]
        process, task = self._processes.get(uid), self._running.get(uid)
        if process is None and task is not None and not task.done() and fault_of(pod) != "image-pull":
            task.cancel()
        if process is not None:
            await self._end(process, pod["metadata"].get("deletionGracePeriodSeconds") or 1)
        if task is not None:
            await asyncio.wait([task], timeout=5.0)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        with contextlib.suppress(ApiError):
            await self._api.call("DELETE", f"{self._pods}/{pod['metadata']['name']}", options)

    async def shut_down(self) -> None:
        """End all processes gently, and let their last statuses out."""
        processes = list(self._processes.values())
        await asyncio.gather(*(self._end(process, 5.0) for process in processes))
        running = [task for task in self._running.values() if not task.done()]
        if processes and running:
            await asyncio.wait(running, timeout=2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    api = Api(options.kubeconfig)
    kubelet = Kubelet(
        api,
        options.node,
        options.namespace,
        options.folder,
        relist_seconds=options.relist_seconds,
        places=options.places,
    )
    node = NodeObject(api, options.node)
    await node.register()
    work = [loop.create_task(node.give_signs_of_life())]
    if options.idle:
        print("ready", flush=True)
    else:
        work.append(loop.create_task(kubelet.follow()))
    await asyncio.wait([*work, loop.create_task(done.wait())], return_when=asyncio.FIRST_COMPLETED)
    await kubelet.shut_down()
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await node.unregister()
    await api.close()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("namespace")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--node", default="wove-test-node")
    parser.add_argument("--relist-seconds", type=float, default=0.0, help="how often it looks for ended processes")
    parser.add_argument("--places", type=int, default=1000, help="how many pods have room at a time")
    parser.add_argument("--idle", action="store_true", help="run no pods")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
