"""What the cluster has said about each run, as pure state: objects in, states out; no I/O and no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wove.integrations.base import JobState
from wove_k8s.manifests import RUN_ANNOTATION

Kind = Literal["jobs", "pods"]
Changes = list[tuple[str, JobState]]

# A pod that is to be gone, and is not after that long beyond its own time, has no node any more that could end it.
_NODE_SECONDS = 5.0
# A Job may be declared over before its pod's end is heard of, which says more.
_DETAILS_SECONDS = 5.0
_LOG_CHARACTERS = 2000
# The reasons for which a container does not start, and which do not go away by themselves in most cases:
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go and container/sync_result.go there.
_STUCK = frozenset(
    "ErrImagePull ImagePullBackOff InvalidImageName ErrImageNeverPull ImageInspectError RegistryUnavailable "
    "CreateContainerConfigError CreateContainerError RunContainerError CrashLoopBackOff".split()
)


@dataclass(slots=True)
class _Pod:
    """One pod of a run.

    Attributes:
        over: whether it has ended, or is gone.
        gone: whether it is not there any more.
        lost: whether it was removed before it had ended.
        exit_code, words: how it ended.
        stuck: why it does not start, and since when.
        overdue: when it should be gone at the latest, if it is being deleted.
    """

    name: str
    node: str = ""
    over: bool = False
    gone: bool = False
    lost: bool = False
    runs: bool = False
    exit_code: int | None = None
    words: str = ""
    stuck: str | None = None
    is_unscheduled: bool = False
    stuck_since: float = 0.0
    overdue: float | None = None


@dataclass(slots=True)
class _Run:
    """What is known about one run.

    Attributes:
        job: the name of its Job, once that was seen or created.
        ended: the state that Kubernetes itself has declared, and until when more may be heard about it.
        deleted: whether the Job is gone.
        cancelled: whether we have asked for that.
        retried: whether Kubernetes starts another pod after one that failed.
        told: the state that was passed on last.
    """

    job: str | None = None
    ended: JobState | None = None
    ended_until: float = 0.0
    deleted: bool = False
    cancelled: bool = False
    retried: bool = False
    pods: dict[str, _Pod] = field(default_factory=dict)
    told: JobState | None = None


class JobBook:
    """The Jobs and pods of one adapter, as two watches show them. Each method returns the states that have changed.

    Args:
        unschedulable_seconds: for how long a pod may wait for a node.
        start_failure_seconds: for how long a container may fail to start.
    """

    def __init__(self, *, unschedulable_seconds: float, start_failure_seconds: float) -> None:
        self._unschedulable = unschedulable_seconds
        self._start_failure = start_failure_seconds
        self._runs: dict[str, _Run] = {}
        # Those that come to an end when nothing is heard of them.
        self._timed: set[str] = set()

    def __len__(self) -> int:
        return len(self._runs)

    def created(self, run_id: str, job: str) -> None:
        """A Job has been created; the watches may have shown it already."""
        run = self._runs.setdefault(run_id, _Run())
        run.job = job

    def cancelled(self, run_id: str) -> None:
        """A Job is about to be deleted because nobody wants it."""
        if run_id in self._runs:
            self._runs[run_id].cancelled = True

    def is_over(self, run_id: str) -> bool:
        """Tell whether Kubernetes has declared a Job over: it removes that by itself."""
        run = self._runs.get(run_id)
        return run is not None and (run.ended is not None or run.deleted)

    def known(self, kind: Kind) -> set[str]:
        """Return what a list that is asked for now has to show: run ids of Jobs, uids of pods."""
        if kind == "jobs":
            return {run_id for run_id, run in self._runs.items() if run.job is not None and not run.deleted}
        return {uid for run in self._runs.values() for uid, pod in run.pods.items() if not pod.gone}

    def listed(self, kind: Kind, items: Iterable[Mapping[str, Any]], known: set[str], *, now: float) -> Changes:
        """Take a list; what was known before and is not in it has been deleted meanwhile."""
        changes: Changes = []
        seen = set()
        for item in items:
            seen.add(_run_of(item) if kind == "jobs" else item["metadata"]["uid"])
            changes += self.seen(kind, "ADDED", item, now=now)
        for missing in known - seen:
            run_id = missing if kind == "jobs" else self._run_with(missing)
            run = self._runs.get(run_id)
            if run is None:
                continue
            if kind == "jobs":
                run.deleted = True
            else:
                _remove(run.pods[missing])
            changes += self._changed(run_id, now)
        return changes

    def seen(self, kind: Kind, event: str, item: Mapping[str, Any], *, now: float) -> Changes:
        """Take an event of a watch: ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object."""
        run_id = _run_of(item)
        if not run_id or (event == "DELETED" and run_id not in self._runs):
            return []
        run = self._runs.setdefault(run_id, _Run())
        if kind == "jobs":
            _note_job(run, item, now, is_deleted=event == "DELETED")
        else:
            uid = item["metadata"]["uid"]
            pod = run.pods.setdefault(uid, _Pod(item["metadata"]["name"]))
            _note_pod(pod, item, now)
            if event == "DELETED":
                _remove(pod)
        return self._changed(run_id, now)

    def next_due(self) -> float | None:
        """Return when `tick` has something to do at the earliest, or None."""
        return min((due for run_id in self._timed for due in self._dues(self._runs[run_id])), default=None)

    def tick(self, *, now: float) -> Changes:
        """Let the time pass."""
        return [change for run_id in list(self._timed) for change in self._changed(run_id, now)]

    # --- what it means ---

    def _run_with(self, uid: str) -> str:
        return next((run_id for run_id, run in self._runs.items() if uid in run.pods), "")

    def _due(self, pod: _Pod) -> float | None:
        if pod.over:
            return None
        dues = [pod.overdue] if pod.overdue is not None else []
        if pod.stuck is not None:
            dues.append(pod.stuck_since + (self._unschedulable if pod.is_unscheduled else self._start_failure))
        return min(dues, default=None)

    def _dues(self, run: _Run) -> list[float]:
        dues = [due for due in map(self._due, run.pods.values()) if due is not None]
        return [*dues, run.ended_until] if run.ended is not None else dues

    def _changed(self, run_id: str, now: float) -> Changes:
        run = self._runs[run_id]
        state = self._state(run, now)
        is_timed = (state is None or not state.over) and bool(self._dues(run))
        (self._timed.add if is_timed else self._timed.discard)(run_id)
        if (run.deleted or run.job is None) and all(pod.gone for pod in run.pods.values()):
            # Nothing is left in the cluster that could be heard of again.
            del self._runs[run_id]
            self._timed.discard(run_id)
        if state is None or state == run.told:
            return []
        run.told = state
        return [(run_id, state)]

    def _state(self, run: _Run, now: float) -> JobState | None:
        pods = list(run.pods.values())
        first = next((pod for pod in pods if pod.over), None)
        last = next((pod for pod in reversed(pods) if pod.over), None)
        alive = [pod for pod in pods if not pod.over]
        lost = next((pod for pod in alive if pod.overdue is not None and pod.overdue <= now), None)
        if lost is not None:
            return JobState(
                "gone", None, f"pod {lost.name} was to be deleted, and its node {lost.node} does not answer"
            )
        # One that was over has been removed after its time to live.
        if run.deleted and run.ended is None:
            return _state_of_deleted(run, last) if not alive else None
        has_failed = run.ended is not None and run.ended.phase == "failed"
        if first is not None and first.lost and not run.retried and not has_failed:
            # Some versions of Kubernetes start another one. Its worker is told that the run is not its own.
            return _state_of_pod(first)
        if run.ended is not None:
            return _with_pod(run.ended, last) if last or not alive or run.ended_until <= now else None
        if first is not None and not run.retried:
            return _state_of_pod(first)
        stuck = next((pod for pod in alive if pod.stuck and (self._due(pod) or now) <= now), None)
        if stuck is not None:
            return JobState("failed", None, f"pod {stuck.name} does not start: {stuck.stuck}")
        return JobState("running" if any(pod.runs for pod in alive) else "queued")


def _run_of(item: Mapping[str, Any]) -> str:
    return str((item["metadata"].get("annotations") or {}).get(RUN_ANNOTATION, ""))


def _remove(pod: _Pod) -> None:
    if not pod.over:
        pod.lost = True
        pod.words = pod.words or "it was deleted before it had ended"
    pod.over = pod.gone = True


def _state_of_deleted(run: _Run, last: _Pod | None) -> JobState:
    if run.cancelled:
        return JobState("cancelled", last.exit_code if last else None, "Wove has deleted the Job")
    state = JobState("gone", None, f"Job {run.job} was deleted, not by this program")
    return _with_pod(state, last)


def _state_of_pod(pod: _Pod) -> JobState:
    if pod.exit_code == 0:
        return JobState("finished", 0, f"pod {pod.name}: {pod.words}")
    return JobState("gone" if pod.lost else "failed", pod.exit_code, f"pod {pod.name}: {pod.words}")


def _with_pod(state: JobState, pod: _Pod | None) -> JobState:
    if pod is None or not pod.words:
        return state
    return JobState(state.phase, pod.exit_code, f"{state.reason}; pod {pod.name}: {pod.words}")


# --- reading objects ---


def _note_job(run: _Run, job: Mapping[str, Any], now: float, *, is_deleted: bool) -> None:
    run.job = job["metadata"]["name"]
    run.deleted = run.deleted or is_deleted
    run.retried = (job["spec"].get("backoffLimit") or 0) > 0
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") != "True":
            continue
        if run.ended is None:
            run.ended_until = now + _DETAILS_SECONDS
        if condition["type"] == "Complete":
            run.ended = JobState("finished", None, f"Job {run.job} is complete")
        elif condition["type"] == "Failed":
            said = ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
            run.ended = JobState("failed", None, f"Job {run.job} has failed: {said}")


def _note_pod(pod: _Pod, item: Mapping[str, Any], now: float) -> None:
    status = item.get("status") or {}
    pod.node = item["spec"].get("nodeName") or pod.node
    pod.runs = status.get("phase") == "Running"
    if item["metadata"].get("deletionTimestamp") and pod.overdue is None:
        grace = item["metadata"].get("deletionGracePeriodSeconds") or 0
        # By our own clock: the server's may differ.
        pod.overdue = now + grace + _NODE_SECONDS
    _note_start(pod, status, now)
    if not pod.over and status.get("phase") in ("Failed", "Succeeded"):
        pod.over = True
        _note_end(pod, status)


def _note_start(pod: _Pod, status: Mapping[str, Any], now: float) -> None:
    stuck, is_unscheduled = None, False
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            stuck, is_unscheduled = _said(condition), True
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            stuck, is_unscheduled = _said(waiting), False
    if stuck is not None and (pod.stuck is None or pod.is_unscheduled != is_unscheduled):
        pod.stuck_since = now
    pod.stuck, pod.is_unscheduled = stuck, is_unscheduled


def _note_end(pod: _Pod, status: Mapping[str, Any]) -> None:
    words = [_said(status)] if status.get("reason") else []
    log = ""
    for container in status.get("containerStatuses") or ():
        end = (container.get("state") or {}).get("terminated")
        if end is None or pod.exit_code not in (None, 0):
            continue
        pod.exit_code = end.get("exitCode")
        words.append(str(end.get("reason") or "ended"))
        log = str(end.get("message") or "").strip()
    pod.words = ", ".join(words) or str(status.get("phase"))
    if log:
        pod.words += f"; the end of its output:\n{log[-_LOG_CHARACTERS:]}"


def _said(part: Mapping[str, Any]) -> str:
    return ": ".join(str(part[key]) for key in ("reason", "message") if part.get(key))
