"""Tasks of the tests, which Ray's workers import from here."""

import os
import threading

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


class Fatal:
    """Ends the process that pickles it."""

    def __reduce__(self) -> str:
        os._exit(7)


def end_with_the_outcome() -> Fatal:
    return Fatal()


def end_after_the_outcome() -> int:
    threading.Timer(0.3, os._exit, (7,)).start()
    return os.getpid()
