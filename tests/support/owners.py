"""A weave's side of runs whose workers a test starts itself, without an executor in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from wove.backend.loop import on_io_loop
from wove.backend.payload import build_backend_payload, split_payload
from wove.backend.receiver import ReceiverSession, open_receiver_session
from wove.backend.signing import sign_payload

SECRET = "a secret that weave and worker share"
FINAL = ("task_result", "task_error", "task_cancelled")


class Owner:
    """The weave's side: opens runs, makes their payloads, reads their events."""

    def __init__(self, session: ReceiverSession, config: dict[str, Any]) -> None:
        self.session = session
        self._config = config
        self._runs = 0

    async def payload(
        self,
        function: Callable[..., Any],
        *,
        lease: float = 30.0,
        limit: int | None = None,
        exclusive: bool = False,
        **args: Any,
    ) -> dict[str, Any]:
        self._runs += 1
        run_id = f"report-{self._runs}"
        frame = {"type": "run_task", "run_id": run_id, "task_id": "report", "callable": function, "args": args}
        whole = build_backend_payload(frame, callback_url=self.session.callback_url, adapter="test")
        small, body = split_payload(whole, limit)
        payload: dict[str, Any] = {**small, "lease": lease, "results": self._config.get("results", "pickle")}
        key = await self._on_loop(lambda: self.session.open_run(run_id, lease=lease, body=body, exclusive=exclusive))
        if key is not None:
            payload["callback_key"] = key
        else:
            payload["callback_security"] = self._config["callback_security"]
            payload["signature"] = sign_payload(payload, SECRET.encode())
        return payload

    async def recv(self) -> dict[str, Any]:
        return await asyncio.wait_for(on_io_loop(self.session.recv()), 30)

    async def outcome(self) -> dict[str, Any]:
        """Return the next final event."""
        while True:
            event = await self.recv()
            if event["type"] in FINAL:
                return event

    async def cancel(self, payload: dict[str, Any]) -> None:
        await self._on_loop(lambda: self.session.request_cancel(payload["run_id"]))

    async def close(self, payload: dict[str, Any]) -> None:
        await self._on_loop(lambda: self.session.close_run(payload["run_id"]))

    async def _on_loop(self, call: Callable[[], Any]) -> Any:
        async def called() -> Any:
            return call()

        return await on_io_loop(called())


@asynccontextmanager
async def owning(**config: Any) -> AsyncIterator[Owner]:
    """Open a session for the time of a block; the keywords are keys of an ``executor_config``."""
    session = await on_io_loop(open_receiver_session(config))
    try:
        yield Owner(session, config)
    finally:
        await on_io_loop(session.close(at_once=True))
