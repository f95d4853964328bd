"""Proves the adapter with Wove's conformance kit, at a real API server with the real Job controller."""

import pytest
from kubernetes_backend import KubernetesDeployment

from wove.testing import AdapterConformance
from wove_k8s import KubernetesJobsAdapter


class TestKubernetesJobs(AdapterConformance):
    """Each task is a Job, whose pod is a process of a node that can be killed."""

    adapter_class = KubernetesJobsAdapter
    subject = "kubernetes_jobs"

    # Two hundred interpreters have to start, on whatever machine this is.
    step_seconds = 60.0
    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    # A node that is gone is given up by Kubernetes after six seconds, and its pods some seconds later.
    dead_job_seconds = 40.0
    cancel_seconds = 10.0

    @pytest.fixture
    def deployment(self, deployment: KubernetesDeployment) -> KubernetesDeployment:
        return deployment
