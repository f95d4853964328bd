"""What the objects of the API server mean, without one: rows of events, and the states that they lead to."""

from typing import Any

import pytest

from wove.integrations.base import JobState
from wove_k8s.manifests import RUN_ANNOTATION
from wove_k8s.states import Changes, JobBook

RUN = "report-1"


class Cluster:
    """Tells a book what a cluster would."""

    def __init__(self) -> None:
        self.book = JobBook(unschedulable_seconds=300.0, start_failure_seconds=60.0)
        self.now = 0.0

    def job(self, event: str = "MODIFIED", *, backoff: int = 0, **condition: str) -> Changes:
        conditions = [{"status": "True", **condition}] if condition else []
        item = {**about("wove-report"), "spec": {"backoffLimit": backoff}, "status": {"conditions": conditions}}
        return self.book.seen("jobs", event, item, now=self.now)

    def pod(self, event: str = "MODIFIED", *, uid: str = "p-1", deleting: int | None = None, **status: Any) -> Changes:
        item = {**about(f"wove-report-{uid}", uid=uid), "spec": {"nodeName": "n1"}, "status": status}
        if deleting is not None:
            item["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": deleting}
        return self.book.seen("pods", event, item, now=self.now)

    def ended(self, code: int, reason: str = "Error", message: str = "", **about_pod: Any) -> Changes:
        end = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
        phase = "Failed" if code else "Succeeded"
        return self.pod(phase=phase, containerStatuses=[{"state": end}], **about_pod)

    def waiting(self, reason: str, message: str = "") -> Changes:
        state = {"waiting": {"reason": reason, "message": message}}
        return self.pod(phase="Pending", containerStatuses=[{"state": state}])

    def after(self, seconds: float) -> Changes:
        self.now += seconds
        return self.book.tick(now=self.now)


def about(name: str, *, uid: str = "j-1") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "annotations": {RUN_ANNOTATION: RUN}}}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def only(changes: Changes) -> JobState:
    ((run_id, state),) = changes
    assert run_id == RUN
    return state


def test_a_job_is_queued_until_its_pod_runs(cluster: Cluster) -> None:
    assert only(cluster.job("ADDED")).phase == "queued"
    assert cluster.pod("ADDED", phase="Pending") == []
    assert only(cluster.pod(phase="Running")).phase == "running"
    assert cluster.pod(phase="Running") == []


def test_a_job_that_is_complete_has_finished(cluster: Cluster) -> None:
    cluster.job("ADDED")
    assert only(cluster.ended(0, "Completed")) == JobState("finished", 0, "pod wove-report-p-1: Completed")
    assert only(cluster.job(type="Complete")).phase == "finished"


def test_a_failed_pod_tells_exit_code_reason_and_the_end_of_its_output(cluster: Cluster) -> None:
    cluster.job("ADDED")
    state = only(cluster.ended(137, "OOMKilled", "reading…\nstill reading…\n"))
    assert (state.phase, state.exit_code) == ("failed", 137)
    assert "OOMKilled; the end of its output:\nreading…\nstill reading…" in str(state.reason)


def test_without_a_controller_a_failed_pod_is_enough(cluster: Cluster) -> None:
    cluster.pod("ADDED", phase="Running")
    assert only(cluster.ended(1)).phase == "failed"


def test_the_job_s_own_words_come_first(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    assert cluster.job(type="Failed", reason="DeadlineExceeded", message="Job was active longer") == []
    # More may be heard of its pod.
    assert cluster.book.next_due() == 5.0
    state = only(cluster.after(5.0))
    assert (state.phase, state.reason) == (
        "failed",
        "Job wove-report has failed: DeadlineExceeded: Job was active longer",
    )
    assert only(cluster.ended(143)).exit_code == 143


def test_a_job_that_has_failed_waits_a_moment_for_the_words_of_its_pod(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    assert cluster.job(type="Failed", reason="BackoffLimitExceeded") == []
    assert only(cluster.ended(3)).exit_code == 3


def test_a_pod_that_a_failed_job_takes_along_is_its_failure(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    cluster.job(type="Failed", reason="DeadlineExceeded")
    state = only(cluster.pod("DELETED", phase="Running"))
    assert (state.phase, "DeadlineExceeded" in str(state.reason)) == ("failed", True)


def test_a_failed_job_that_is_removed_after_its_time_to_live_has_still_failed(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    cluster.job(type="Failed", reason="DeadlineExceeded")
    assert only(cluster.ended(137)).phase == "failed"
    assert cluster.job("DELETED", type="Failed", reason="DeadlineExceeded") == []
    assert cluster.pod("DELETED", phase="Failed") == []


def test_an_evicted_pod_says_why(cluster: Cluster) -> None:
    cluster.job("ADDED")
    state = only(cluster.pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert "Evicted: The node was low on resource: memory." in str(state.reason)


def test_with_retries_of_kubernetes_the_job_decides(cluster: Cluster) -> None:
    cluster.job("ADDED", backoff=2)
    cluster.pod("ADDED", phase="Running")
    assert only(cluster.ended(1)).phase == "queued"
    assert only(cluster.pod("ADDED", uid="p-2", phase="Running")).phase == "running"
    cluster.ended(1, uid="p-2")
    assert only(cluster.job(backoff=2, type="Failed", reason="BackoffLimitExceeded")).exit_code == 1


def test_an_image_that_cannot_be_pulled_is_waited_for(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.waiting("ErrImagePull", "not found")
    cluster.now += 30.0
    assert cluster.waiting("ImagePullBackOff", "Back-off pulling image") == []
    assert cluster.book.next_due() == 60.0
    state = only(cluster.after(30.0))
    assert (state.phase, state.reason) == (
        "failed",
        "pod wove-report-p-1 does not start: ImagePullBackOff: Back-off pulling image",
    )


def test_a_container_that_starts_after_all_is_no_failure(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.waiting("ImagePullBackOff")
    cluster.now = 59.0
    assert only(cluster.pod(phase="Running")).phase == "running"
    assert cluster.book.next_due() is None


def test_a_pod_without_a_node_is_waited_for(cluster: Cluster) -> None:
    cluster.job("ADDED")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    cluster.pod("ADDED", phase="Pending", conditions=[condition])
    assert cluster.book.next_due() == 300.0
    assert "Unschedulable: 0/3 nodes" in str(only(cluster.after(300.0)).reason)


def test_a_pod_whose_node_does_not_end_it_is_given_up(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    assert cluster.pod(phase="Running", deleting=30) == []
    state = only(cluster.after(36.0))
    assert (state.phase, "its node n1 does not answer" in str(state.reason)) == ("gone", True)


def test_a_pod_that_was_deleted_is_gone(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    state = only(cluster.pod("DELETED", phase="Running"))
    assert (state.phase, "deleted before it had ended" in str(state.reason)) == ("gone", True)


def test_a_deleted_job_is_over_when_its_pods_are(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    assert cluster.job("DELETED") == []
    state = only(cluster.ended(143))
    assert (state.phase, state.exit_code) == ("gone", 143)
    assert "was deleted, not by this program" in str(state.reason)


def test_a_job_that_we_delete_is_cancelled(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.book.cancelled(RUN)
    assert only(cluster.job("DELETED")).phase == "cancelled"


def test_what_a_list_does_not_show_any_more_has_been_deleted(cluster: Cluster) -> None:
    cluster.book.created(RUN, "wove-report")
    known = cluster.book.known("jobs")
    cluster.book.created("later-1", "wove-later")
    changes = cluster.book.listed("jobs", [], known, now=0.0)
    assert only(changes).phase == "gone"


def test_nothing_is_kept_of_what_is_not_in_the_cluster_any_more(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    cluster.ended(0)
    cluster.job("DELETED")
    cluster.pod("DELETED", phase="Succeeded")
    assert len(cluster.book) == 0
    assert cluster.pod("DELETED", phase="Succeeded") == []
    assert len(cluster.book) == 0


def test_objects_of_somebody_else_are_ignored(cluster: Cluster) -> None:
    foreign = {"metadata": {"name": "x", "uid": "u"}, "spec": {}, "status": {}}
    assert cluster.book.seen("jobs", "ADDED", foreign, now=0.0) == []
    assert len(cluster.book) == 0


def test_a_pod_that_takes_the_place_of_a_lost_one_changes_nothing(cluster: Cluster) -> None:
    cluster.job("ADDED")
    cluster.pod("ADDED", phase="Running")
    assert only(cluster.pod("DELETED", phase="Running")).phase == "gone"
    assert cluster.pod("ADDED", uid="p-2", phase="Running") == []
    assert cluster.ended(0, uid="p-2") == []
    assert cluster.job(type="Complete") == []
