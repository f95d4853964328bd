"""A run that nobody waits for, and what is left of it."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from wove.backend.connections import connections
from wove.backend.rehearsal import rehearsal_payload, rehearse
from wove.backend.spool import spool
from wove.errors import DeliveryError, SignatureError


@pytest.fixture(autouse=True)
def spool_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


def test_a_rehearsal_posts_an_outcome_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, spool_dir: Path) -> None:
    # The first one may load modules.
    rehearse(rehearsal_payload())
    posted: list[tuple[str, int]] = []
    connect = socket.create_connection

    def noting(address: tuple[str, int], timeout: float) -> socket.socket:
        posted.append(address)
        return connect(address, timeout)

    def state() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return [threading.enumerate(), len(os.listdir("/proc/self/fd")), connections().idle, handlers]

    monkeypatch.setattr(socket, "create_connection", noting)
    before = state()
    rehearse(rehearsal_payload())
    assert [len(posted), state()] == [1, before]
    assert not spool_dir.exists()


def test_a_rehearsal_fails_where_each_run_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_CALLBACK_SECURITY", "env:WOVE_NO_SUCH_SECRET")
    threads = threading.enumerate()
    with pytest.raises(SignatureError):
        rehearse(rehearsal_payload())
    assert [thread for thread in threading.enumerate() if thread not in threads] == []


def test_a_rehearsal_that_is_held_up_ends_soon_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, spool_dir: Path
) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        raise ConnectionRefusedError

    spool.cache_clear()
    threads = threading.enumerate()
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(DeliveryError):
        rehearse(rehearsal_payload())
    assert [thread for thread in threading.enumerate() if thread not in threads] == []
    assert list(spool_dir.iterdir()) == []
    spool.cache_clear()
