"""The environments of `quickstart.py`: where its heavy step can run, by the names that ``--environment`` takes."""

import os

REDIS_URL = os.environ.get("WOVE_REDIS_URL", "redis://127.0.0.1:6379/0")
# What stands in for AWS; empty for AWS itself, whose jobs reach this process at the WOVE_CALLBACK_URL.
AWS_ENDPOINT = os.environ.get("WOVE_AWS_ENDPOINT", "http://127.0.0.1:5555")
# The stand-in has this bucket.
AWS_BUCKET = os.environ.get("WOVE_BATCH_BUCKET") or ("wove-payloads" if AWS_ENDPOINT else None)
AWS_KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "eu-central-1"}
AWS_CALLBACK = {"callback_host": "0.0.0.0", "callback_port": 9010, "callback_url": os.environ.get("WOVE_CALLBACK_URL")}
# Pods reach this process at the WOVE_CALLBACK_URL; those of the stand-in are processes of this machine.
K8S_CALLBACK = {"callback_host": "0.0.0.0", "callback_port": 9010, "callback_url": os.environ.get("WOVE_CALLBACK_URL")}
# Nodes of a cluster, too; those of the stand-in are this machine.
SLURM_CALLBACK = K8S_CALLBACK if K8S_CALLBACK["callback_url"] else {}

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
        # A Dask cluster; start one with:  dask scheduler --port 8786  and  dask worker tcp://127.0.0.1:8786
        "dask": {
            "executor": "dask",
            "executor_config": {"address": os.environ.get("WOVE_DASK_ADDRESS", "tcp://127.0.0.1:8786")},
            "delivery_timeout": 120.0,
        },
        # A Ray cluster; start one with:  ray start --head  and end it with:  ray stop
        "ray": {
            "executor": "ray",
            "executor_config": {"address": os.environ.get("WOVE_RAY_ADDRESS", "auto")},
            "delivery_timeout": 120.0,
        },
        # AWS Batch; start what stands in for it with:  python -m tests.beds.batch_server
        "aws_batch": {
            "executor": "aws_batch",
            "executor_config": {
                "job_queue": os.environ.get("WOVE_BATCH_QUEUE", "wove-queue"),
                "job_definition": os.environ.get("WOVE_BATCH_DEFINITION", "wove-worker"),
                "payload_bucket": AWS_BUCKET,
                **({"client_options": {"endpoint_url": AWS_ENDPOINT, **AWS_KEYS}} if AWS_ENDPOINT else AWS_CALLBACK),
            },
            "delivery_timeout": 600.0,
        },
        # Kubernetes; start what stands in for a cluster with:  python -m tests.beds.kubernetes
        "kubernetes_jobs": {
            "executor": "kubernetes_jobs",
            "executor_config": {
                "image": os.environ.get("WOVE_K8S_IMAGE", "registry.example.org/wove-quickstart"),
                **(K8S_CALLBACK if K8S_CALLBACK["callback_url"] else {}),
            },
            "delivery_timeout": 600.0,
        },
        # A Temporal worker; start one with:  python -m wove_temporal.worker --address localhost:7233 --task-queue wove
        "temporal": {
            "executor": "temporal",
            "executor_config": {
                "target_host": os.environ.get("WOVE_TEMPORAL_ADDRESS", "localhost:7233"),
                "task_queue": "wove",
            },
            "delivery_timeout": 120.0,
        },
        # Slurm; start a cluster of one node with:  python -m tests.beds.slurm /tmp/wove-slurm
        "slurm": {
            "executor": "slurm",
            "executor_config": {"partition": os.environ.get("WOVE_SLURM_PARTITION"), **SLURM_CALLBACK},
            "delivery_timeout": 600.0,
        },
    },
}
