"""Tasks of the tests, which Ray's workers import from here."""

import os

import ray

from wove.testing import tasks


def variable(name: str) -> str | None:
    return os.environ.get(name)


def own_name() -> str | None:
    name: str | None = ray.get_runtime_context().get_task_name()
    return name


def insist(board: str, label: str) -> None:
    try:
        tasks.wait_at(board, label)
    except BaseException:
        tasks.wait_at(board, "interrupted")
        raise


def length_of(item: int, blob: bytes) -> int:
    return len(blob) + item


def change(item: int, table: list[int]) -> int:
    table[0] += item
    return table[0]
