"""Arguments that wait at the receiver apart from the payloads of a map, through weaves and the worker's real code."""

from collections.abc import Iterator
from typing import Any

import pytest

import wove
from tests.support.adapters import Ledger, MemoryAdapter
from wove import BackendAdapterEnvironmentExecutor, weave
from wove.runtime import runtime
from wove.serialization import dumps
from wove.testing.proxy import FaultProxy
from wove.testing.servers import free_port

SIZE = 300_000


class ClaimingAdapter(MemoryAdapter):
    """Its workers fetch large arguments."""

    claims_apart = True


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    runtime.reset()
    yield Ledger()
    runtime.reset()
    wove.shutdown()


def configure(ledger: Ledger, **config: Any) -> None:
    executor = BackendAdapterEnvironmentExecutor("jobs", adapter_class=ClaimingAdapter)
    definition = {"executor": executor, "executor_config": {"ledger": ledger, **config}}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "jobs": definition})


def sums(items: int, table: bytes) -> list[int]:
    with weave(table=table) as w:

        @w.do(range(items), environment="jobs")
        def total(row: int, table: bytes) -> int:
            return row + len(table)

    values: list[int] = w.result.total
    return values


def test_an_argument_that_all_items_need_crosses_once(ledger: Ledger) -> None:
    port, token = free_port(), "shared-arguments-token"
    with FaultProxy(("127.0.0.1", port)) as proxy:
        configure(ledger, callback_port=port, callback_token=token, callback_url=proxy.url(f"/wove/events/{token}"))
        assert sums(20, b"once" * SIZE) == [row + 4 * SIZE for row in range(20)]
        fetched = [request for request in proxy.requests() if request.method == "GET"]
    assert len(fetched) == 1
    assert max(len(dumps(payload, what="a payload")) for payload in ledger.payloads) < 64 * 1024


@pytest.mark.parametrize("security", ["signed", "env:SHARED_SECRET"])
def test_an_argument_apart_is_a_part_of_what_is_signed(
    ledger: Ledger, security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARED_SECRET", "a secret that weave and worker share")
    configure(ledger, callback_security=security)
    assert sums(3, security.encode() * SIZE) == [row + len(security) * SIZE for row in range(3)]


def test_a_payload_above_the_limit_and_an_argument_apart_are_both_fetched(ledger: Ledger) -> None:
    configure(ledger, max_payload_bytes=2000)
    rows = [bytes(5000) for _ in range(3)]
    with weave(table=b"both" * SIZE) as w:

        @w.do(rows, environment="jobs")
        def total(row: bytes, table: bytes) -> int:
            return len(row) + len(table)

    assert w.result.total == [5000 + 4 * SIZE] * 3
    assert all("claim" in payload and len(payload["apart"]) == 1 for payload in ledger.payloads)
