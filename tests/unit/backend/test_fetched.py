"""Arguments that a worker process fetches once for all runs that need them."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wove.backend.fetched import FetchedValues


def ticket(value: bytes) -> dict[str, object]:
    return {"digest": hashlib.sha256(value).hexdigest(), "size": len(value)}


class Store:
    """Gives values by their digests, and counts how often."""

    def __init__(self, *values: bytes) -> None:
        self.values = {hashlib.sha256(value).hexdigest(): value for value in values}
        self.fetched: list[int] = []

    def fetch(self, digest: str, size: int) -> bytes | None:
        self.fetched.append(size)
        return self.values.get(digest)


def test_a_value_is_fetched_once() -> None:
    store, values = Store(b"shared"), FetchedValues()
    for _ in range(3):
        assert values.collect([ticket(b"shared")], store.fetch) == {ticket(b"shared")["digest"]: b"shared"}
    assert store.fetched == [6]


def test_runs_that_begin_at_the_same_time_fetch_it_once() -> None:
    store, values, begun = Store(b"shared"), FetchedValues(), threading.Barrier(8)

    def collect(_: int) -> object:
        begun.wait()
        return values.collect([ticket(b"shared")], store.fetch)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(collect, range(8)))
    assert store.fetched == [6]


def test_a_value_that_is_not_given_is_asked_for_again() -> None:
    values = FetchedValues()
    assert values.collect([ticket(b"shared")], Store().fetch) is None
    assert values.collect([ticket(b"shared")], Store(b"shared").fetch) is not None


def test_a_value_that_is_another_one_is_refused() -> None:
    with pytest.raises(ValueError, match="not the one that was submitted"):
        FetchedValues().collect([ticket(b"shared")], lambda digest, size: b"forged")


def test_those_that_were_not_asked_for_the_longest_are_forgotten() -> None:
    store, values = Store(b"a" * 4, b"b" * 5, b"c" * 6), FetchedValues(most_bytes=11)
    for value in (b"a" * 4, b"b" * 5, b"a" * 4, b"c" * 6, b"a" * 4, b"b" * 5):
        values.collect([ticket(value)], store.fetch)
    assert store.fetched == [4, 5, 6, 5]
