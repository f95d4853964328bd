"""The owner's end of the callback path: sessions that expect runs, and the public `BackendCallbackServer`."""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from wove.backend.addresses import is_loopback, is_wildcard, reachable_address, url_host
from wove.backend.arrivals import take_outcome
from wove.backend.bodies import DEFAULT_LIMITS, ReceiveLimits
from wove.backend.callback_settings import EVENTS_PATH, CallbackSettings, read_callback_settings
from wove.backend.callbacks import callback_table
from wove.backend.inbox import Inbox, Listener
from wove.backend.loop import on_io_loop
from wove.backend.server import ServerUse, use_server
from wove.backend.threads import in_daemon_thread

# A shorter token could be found by trying.
_SHORTEST_STRONG_TOKEN = 16

logger = logging.getLogger("wove")
_warned: set[str] = set()


class ReceiverSession:
    """Receives the events of the runs that it opens. Made by `open_receiver_session`, used on the background loop.

    Attributes:
        callback_url: the URL that workers post events to. It holds the token: keep it out of logs.
        settings: the checked configuration.
    """

    def __init__(
        self, settings: CallbackSettings, callback_url: str, server: ServerUse | None, *, any_run: bool
    ) -> None:
        self.settings = settings
        self.callback_url = callback_url
        self._server = server
        self._inbox = Inbox()
        self._callback = callback_table().enter(settings.token)
        self._callback.join(self._inbox, settings, any_run=any_run)
        self._open = True

    def open_run(
        self,
        run_id: str,
        *,
        lease: float,
        body: bytes | None = None,
        exclusive: bool = False,
        apart: Mapping[str, bytes] | None = None,
    ) -> str | None:
        """Expect the events of a run.

        Args:
            run_id: unique to the attempt.
            lease: seconds within which a worker is asked to show a sign of life.
            body: what a worker may fetch of the run's payload, see `split_payload`.
            exclusive: only the first worker that begins to execute the run may ever do so; otherwise another one may
                take over when the first has not been heard for its lease.
            apart: arguments that a worker may fetch beside the payload, by their digests.

        Returns:
            The key with which the worker signs, for ``payload["callback_key"]``; None where the worker derives it from
            a secret that it shares (``callback_security="env:VAR"``).

        Raises:
            ValueError: the run was opened before.
            RuntimeError: the session is closed.
        """
        if not self._open:
            raise RuntimeError("The receiver session is closed; open another one.")
        run = self._callback.open(run_id, self._inbox, lease=lease, claim=body, exclusive=exclusive, apart=apart)
        return run.key if self.settings.security in (None, "signed") else None

    def request_cancel(self, run_id: str) -> None:
        """Have the run's worker told to stop when it posts its next event. Does nothing for a run that is over."""
        self._callback.request_cancel(run_id)

    def close_run(self, run_id: str) -> None:
        """Accept no more events of a run; a worker that posts one is told to stop. Idempotent."""
        self._callback.close(run_id)

    def listen(self, listener: Listener) -> None:
        """Have every event frame passed on at once, on the background loop; `recv` then waits for the end alone.

        Args:
            listener: gets each frame; must not raise.
        """
        self._inbox.listen(listener)

    async def take_outcome(self, run_id: str, outcome: bytes) -> None:
        """Take a run's final event that its backend has carried back, as if its worker had posted it.

        Args:
            run_id: the run.
            outcome: what ``run(payload, returns=...)`` returned.

        Raises:
            Refusal: it is not accepted, for the reasons that the event would not have been, or as it is not signed.
        """
        await take_outcome(self._callback, run_id, outcome)

    async def recv(self) -> dict[str, Any]:
        """Return the next event frame: authenticated, of an open run, with its Python values. One reader at a time.

        Raises:
            RuntimeError: the session is closed and everything it received has been read.
        """
        return await self._inbox.get()

    async def close(self, *, at_once: bool = False) -> None:
        """Close all runs and leave the server, which stays open for others, or for a while, unless `at_once`.

        Idempotent.
        """
        if not self._open:
            return
        self._open = False
        if self._callback.leave(self._inbox):
            callback_table().remove(self.settings.token)
        self._inbox.close()
        if self._server is not None:
            await self._server.release(at_once=at_once)


async def open_receiver_session(
    config: Mapping[str, Any], *, limits: ReceiveLimits = DEFAULT_LIMITS, any_run: bool = False
) -> ReceiverSession:
    """Open a session, and with it the process's server for its address unless that is open already.

    Call it on the background loop.

    Args:
        config: an ``executor_config``; see `read_callback_settings` for its keys.
        limits: how long a client may take.
        any_run: also receive the events of runs that were never opened.

    Raises:
        ConfigurationError: a key is wrong, or the port is taken.
        MissingDispatchFeatureError: a package is missing.
    """
    settings = read_callback_settings(config)
    server = None
    if settings.own_server:
        server = await use_server(settings.host, settings.port, limits)
    try:
        url = settings.public_url
        if url is None and server is not None:
            url = await in_daemon_thread(_own_url, settings, server)
        _warn_of_unknown_token(settings)
        _warn_of_open_doors(settings, server)
        return ReceiverSession(settings, url or "", server, any_run=any_run)
    except BaseException:
        if server is not None:
            await server.release(at_once=True)
        raise


class BackendCallbackServer:
    """Receives worker events and returns them as frames, for code that talks to a backend without an executor.

    It takes the events of any run that come with the right token. Several servers with one address share one listener.
    All methods may be called from any event loop, `recv` from one at a time.

    Args:
        host: the address or host name to listen on.
        port: the port; 0 for any free one.
        public_url: the URL for workers where that is another; an empty path is completed with the token.
        token: the last part of the URL's path; random if omitted.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, public_url: str | None = None, token: str | None = None
    ) -> None:
        self._config = {
            "callback_host": host,
            "callback_port": port,
            "callback_url": public_url,
            "callback_token": token,
        }
        settings = read_callback_settings(self._config)
        # Kept, so that the URL of a server that is stopped and started again stays the same.
        self._config["callback_token"] = settings.token
        self._session: ReceiverSession | None = None

    @property
    def callback_url(self) -> str:
        """The URL that workers post events to.

        Raises:
            RuntimeError: the server has not been started.
        """
        return self._started().callback_url

    async def start(self) -> None:
        """Start to listen. Does nothing when it has been started.

        Raises:
            ConfigurationError: the port is taken, or the address is not one of this machine.
            MissingDispatchFeatureError: uvicorn or starlette is not installed.
        """
        if self._session is None:
            self._session = await on_io_loop(open_receiver_session(self._config, any_run=True))

    async def recv(self) -> dict[str, Any]:
        """Return the next event frame, its values unpickled; waits until there is one.

        Raises:
            RuntimeError: the server has not been started, or was stopped.
        """
        return await self._started().recv()

    async def stop(self) -> None:
        """Stop to listen, unless others share the address. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await on_io_loop(session.close(at_once=True))

    def _started(self) -> ReceiverSession:
        if self._session is None:
            raise RuntimeError("The callback server has not been started: await its start() first.")
        return self._session


def _own_url(settings: CallbackSettings, server: ServerUse) -> str:
    host = settings.host
    if is_wildcard(server.address):
        host = reachable_address(server.family)
    return f"http://{url_host(host)}:{server.port}{EVENTS_PATH}/{settings.token}"


def _warn_of_unknown_token(settings: CallbackSettings) -> None:
    if settings.public_url is None or settings.pinned or urlsplit(settings.public_url).path.endswith(settings.token):
        return
    logger.warning(
        "callback_url has a path of its own and callback_token is not set, so the proxy behind that URL cannot know "
        "where to pass events on to. Set callback_token, and let the proxy pass them on to %s/<callback_token>.",
        EVENTS_PATH,
    )


def _warn_of_open_doors(settings: CallbackSettings, server: ServerUse | None) -> None:
    """Say once per address what whoever gets hold of a callback URL can do where nothing but the URL is secret."""
    public_host = urlsplit(settings.public_url).hostname if settings.public_url else None
    hosts = [server.address if server is not None else None, public_host]
    if not settings.takes_unsigned or all(is_loopback(host) for host in hosts if host):
        return
    place = f"{server.address}:{server.port}" if server is not None else "the application's own server"
    if place in _warned:
        return
    _warned.add(place)
    weak = settings.pinned and len(settings.token) < _SHORTEST_STRONG_TOKEN
    logger.warning(
        "The callback receiver on %s can be reached from other hosts and takes unsigned events: whoever learns a "
        "callback URL can send results, which are unpickled here.%s Set callback_security to 'signed' or "
        "'env:NAME_OF_A_VARIABLE' in the environment's executor_config.",
        place,
        f" The callback_token has only {len(settings.token)} characters." if weak else "",
    )
