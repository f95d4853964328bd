"""Which log records of a worker concern the weave."""

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from wove.backend.task_logs import Forwarding


@pytest.fixture
def forwarded() -> Iterator[list[Mapping[str, Any]]]:
    records: list[Mapping[str, Any]] = []
    with Forwarding(records.append):
        yield records


def _messages(records: list[Mapping[str, Any]]) -> list[str]:
    return [record["message"] for record in records]


def test_warnings_of_any_logger_are_forwarded_with_level_and_logger(forwarded: list[Mapping[str, Any]]) -> None:
    logging.getLogger("some.library").warning("low on %s", "memory")
    assert forwarded == [{"level": logging.WARNING, "message": "low on memory", "logger": "some.library"}]


def test_information_is_forwarded_from_the_task_s_own_logger_alone(forwarded: list[Mapping[str, Any]]) -> None:
    logging.getLogger("some.library").setLevel(logging.INFO)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("wove.task").info("half way")
    logging.getLogger("wove.task.report").info("nearly there")
    logging.getLogger("wove.task").debug("details")
    logging.getLogger("wove.taskmaster").info("somebody else")
    assert _messages(forwarded) == ["half way", "nearly there"]
    logging.getLogger("some.library").setLevel(logging.NOTSET)


def test_a_traceback_is_a_part_of_the_message(forwarded: list[Mapping[str, Any]]) -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("job").exception("it failed")
    assert "it failed\nTraceback" in forwarded[0]["message"]
    assert "ValueError: inner" in forwarded[0]["message"]


def test_a_long_message_is_cut(forwarded: list[Mapping[str, Any]]) -> None:
    logging.getLogger("job").warning("x" * 100_000)
    assert len(forwarded[0]["message"]) == 16 * 1024


def test_a_record_that_cannot_be_formatted_is_left_to_logging(
    forwarded: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wordless:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("job").warning("%s", Wordless())
    assert forwarded == []


def test_other_threads_of_the_process_are_not_the_task(forwarded: list[Mapping[str, Any]]) -> None:
    thread = threading.Thread(target=logging.getLogger("job").warning, args=("elsewhere",))
    thread.start()
    thread.join()
    assert forwarded == []


def test_tasks_side_by_side_get_their_own_records() -> None:
    together = threading.Barrier(2)
    found: dict[str, list[str]] = {}

    def task(name: str) -> None:
        records: list[Mapping[str, Any]] = []
        with Forwarding(records.append):
            together.wait(20)
            logging.getLogger("job").warning(name)
            together.wait(20)
        found[name] = _messages(records)

    threads = [threading.Thread(target=task, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {"a": ["a"], "b": ["b"]}


def test_afterwards_logging_is_as_it_was() -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger("wove.task").level
    records: list[Mapping[str, Any]] = []
    with Forwarding(records.append):
        assert logging.getLogger("wove.task").isEnabledFor(logging.INFO)
    logging.getLogger("job").warning("too late")
    assert records == []
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("wove.task").level == level


def test_a_level_that_the_worker_has_set_is_kept() -> None:
    logger = logging.getLogger("wove.task")
    logger.setLevel(logging.ERROR)
    try:
        records: list[Mapping[str, Any]] = []
        with Forwarding(records.append):
            logger.info("not wanted here")
        assert records == []
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)
