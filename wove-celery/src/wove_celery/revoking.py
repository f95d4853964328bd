"""How a worker is told which runs nobody wants any more. In the worker's main process only.

Celery's own command "revoke" notes every id that its worker does not execute as revoked in the result backend, where
that stays for a day. Runs have no results there; so for them, the command does the rest of what it does and notes
nothing. A worker without this module takes the same message for Celery's own.
"""

import logging
from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import Panel, control_command

from wove_celery.settings import REVOKE_COMMAND, REVOKE_FLAG

logger = logging.getLogger("wove")

_celerys = Panel.data[REVOKE_COMMAND]
_known = Panel.meta[REVOKE_COMMAND]


# In place of Celery's; `celery control` shows what it has shown before.
@control_command(name=REVOKE_COMMAND, variadic=_known.variadic, signature=_known.signature, help=_known.help)  # type: ignore[untyped-decorator]
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **others: Any) -> Any:
    """Revoke tasks by their ids; a flag says that they are runs of weaves."""
    if not others.pop(REVOKE_FLAG, False):
        return _celerys(state, task_id, terminate=terminate, signal=signal, **others)
    run_ids = [task_id] if isinstance(task_id, str) else list(task_id)
    # What comes from the queue later is dropped.
    worker_state.revoked.update(run_ids)
    held = [worker_state.requests[run_id] for run_id in run_ids if run_id in worker_state.requests]
    if terminate:
        for request in held:
            logger.info("Ending run %s.", request.id)
            request.terminate(state.consumer.pool, signal=signal)
    return {"ok": f"{len(run_ids)} runs flagged as revoked"}
