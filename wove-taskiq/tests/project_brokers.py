"""Brokers as a project has them; its tasks return results, which it keeps."""

import os

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from wove_taskiq.listening import LastingListBroker

_URL = os.environ.get("PROJECT_REDIS_URL", "redis://127.0.0.1:1/0")


def make_list_broker() -> ListQueueBroker:
    # As the README says: otherwise the worker ends with its tasks when five seconds go by without a message.
    broker = LastingListBroker(_URL, queue_name="project")
    broker.with_result_backend(RedisAsyncResultBackend(_URL))
    return broker


list_broker = make_list_broker()
stream_broker = RedisStreamBroker(_URL, queue_name="project-stream")
