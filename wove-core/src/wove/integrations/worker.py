"""The worker's entry points: what a backend's job calls with the payload that it carries.

::

    from wove.integrations.worker import arun, run

    def job(payload):
        return run(payload)
"""

from wove.backend.execution import CurrentRun, current_run
from wove.backend.worker import run_backend_payload as run
from wove.backend.worker import run_backend_payload_async as arun

__all__ = ["CurrentRun", "arun", "current_run", "run"]
