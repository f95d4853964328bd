"""Proves the adapter with Wove's conformance kit, on a real cluster."""

import pytest
from slurm_backend import SlurmDeployment

from wove.testing import AdapterConformance
from wove_slurm import SlurmAdapter


class TestSlurm(AdapterConformance):
    """Jobs on a cluster of one node."""

    adapter_class = SlurmAdapter
    subject = "slurm"

    # Each task is a process that has to be started.
    step_seconds = 60.0
    # A controller starts jobs about once a second.
    delivery_timeout = 3.0
    outage_seconds = 2.0
    stop_seconds = 3.0
    # Slurm's programs try for nine seconds to reach their controller.
    fail_fast_seconds = 20.0
    # The controller has to miss several answers of a node.
    dead_job_seconds = 45.0

    @pytest.fixture
    def deployment(self, deployment: SlurmDeployment) -> SlurmDeployment:
        return deployment
