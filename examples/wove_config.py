"""The environments of `quickstart.py`: where its heavy step can run, by the names that ``--environment`` takes."""

import os

REDIS_URL = os.environ.get("WOVE_REDIS_URL", "redis://127.0.0.1:6379/0")

WOVE_CONFIG = {
    "default_environment": "embedded",
    "environments": {
        # This process: nothing to install, nothing to start.
        "embedded": {"executor": "local"},
        # A worker process of its own. Wove starts it and ends it.
        "stdio": {"executor": "stdio", "delivery_timeout": 120.0},
        # A worker service; start one with:  python -m wove.services http --port 8765
        "http": {
            "executor": "http",
            "executor_config": {"url": os.environ.get("WOVE_SERVICE_URL", "http://127.0.0.1:8765/wove/tasks")},
            "delivery_timeout": 120.0,
        },
        # RQ workers; start one with:  python -m wove_rq.worker --url redis://127.0.0.1:6379/0
        "rq": {"executor": "rq", "executor_config": {"redis_url": REDIS_URL}, "delivery_timeout": 120.0},
        # An ARQ worker; start one with:  python -m wove_arq.worker --url redis://127.0.0.1:6379/0
        "arq": {"executor": "arq", "executor_config": {"redis_settings": REDIS_URL}, "delivery_timeout": 120.0},
        # A Celery worker; start one with:  python -m wove_celery.worker -b redis://127.0.0.1:6379/0
        "celery": {"executor": "celery", "executor_config": {"broker_url": REDIS_URL}, "delivery_timeout": 120.0},
        # A Taskiq worker; start one with:  python -m wove_taskiq.worker --url redis://127.0.0.1:6379/0
        "taskiq": {"executor": "taskiq", "executor_config": {"broker": REDIS_URL}, "delivery_timeout": 120.0},
    },
}
