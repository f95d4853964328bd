"""The worker of a project that has jobs of its own, with ARQ's defaults and one import for Wove."""

import os
from typing import Any

from arq.connections import RedisSettings

from wove_arq.worker import run_payload


async def greet(ctx: dict[str, Any], name: str) -> str:
    return f"hello {name}"


class WorkerSettings:
    functions = (greet, run_payload)
    redis_settings = RedisSettings.from_dsn(os.environ["WOVE_REDIS_URL"])
    allow_abort_jobs = True
    queue_name = "project"
