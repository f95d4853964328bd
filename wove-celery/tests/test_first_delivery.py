"""Which requests the worker's main process marks, and what the executing process makes of the mark."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from wove_celery.first_delivery import SENT_AGAIN, SENT_HEADER, is_first_delivery, mark, was_sent_again


def _request(sent: object, *, redelivered: bool = False, eta: object = None, late: bool = False) -> Any:
    return SimpleNamespace(
        request_dict={SENT_HEADER: sent},
        delivery_info={"redelivered": redelivered},
        eta=eta,
        task=SimpleNamespace(acks_late=late),
    )


def _is_marked(request: Any, *, driver: str = "redis", listening: float = 60.0) -> bool:
    mark(request, driver=driver, listening_since=time.time() - listening)
    return is_first_delivery(request.request_dict)


@pytest.mark.parametrize("driver", ["amqp", "redis"])
def test_a_message_that_was_sent_while_the_worker_listened_is_a_first_delivery(driver: str) -> None:
    assert _is_marked(_request(time.time()), driver=driver)


@pytest.mark.parametrize(
    "changes", [{"redelivered": True}, {"eta": "2030-01-01T00:00:00"}, {"late": True}], ids=["again", "eta", "late"]
)
def test_a_message_that_comes_or_may_come_again_is_none(changes: dict[str, Any]) -> None:
    assert not _is_marked(_request(time.time(), **changes))


def test_a_message_that_may_have_been_revoked_before_the_worker_listened_is_none() -> None:
    assert not _is_marked(_request(time.time() - 30.0), listening=10.0)


def test_a_message_whose_sender_has_another_idea_of_the_time_is_none() -> None:
    assert not _is_marked(_request(time.time() + 600.0))


def test_a_message_that_is_sent_once_more_is_none() -> None:
    assert not _is_marked(_request(SENT_AGAIN))


def test_a_worker_knows_what_is_sent_once_more() -> None:
    assert was_sent_again(_request(SENT_AGAIN).request_dict)
    assert not was_sent_again(_request(time.time()).request_dict)
    assert not was_sent_again({})


def test_a_broker_that_does_not_say_that_it_delivers_again_has_none() -> None:
    assert not _is_marked(_request(time.time()), driver="sqs")


def test_a_mark_that_came_with_the_message_is_removed() -> None:
    marked, stranger = _request(time.time()), _request(None)
    assert _is_marked(marked)
    stranger.request_dict = {**marked.request_dict, SENT_HEADER: None}
    assert not _is_marked(stranger)


def test_a_message_that_waits_in_the_worker_is_a_first_delivery_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = _request(time.time())
    assert _is_marked(request)
    later = time.monotonic() + 1.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not is_first_delivery(request.request_dict)
