"""Faults that pods ask the test kubelet for, by annotations:

wove-test/fault: image-pull       ErrImagePull, then ImagePullBackOff, until it is deleted
                 unschedulable    PodScheduled=False, reason Unschedulable; never bound
                 oom              killed as the kernel does it: exit code 137, reason OOMKilled
                 evict            killed because the node lacks memory: phase Failed, reason Evicted
wove-test/after: "0.5"            seconds that oom and evict let it run
"""

from tests.beds.kubelet_containers import Pod

FAULT, AFTER = "wove-test/fault", "wove-test/after"


def fault_of(pod: Pod) -> str | None:
    """Return the fault that a pod asks for."""
    found: str | None = pod["metadata"].get("annotations", {}).get(FAULT)
    return found


def seconds_to_live(pod: Pod) -> float | None:
    """Return after how many seconds a fault kills a pod, or None where none does."""
    if fault_of(pod) not in ("oom", "evict"):
        return None
    return float(pod["metadata"]["annotations"].get(AFTER, "0.5"))
