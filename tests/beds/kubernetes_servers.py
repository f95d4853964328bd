"""The servers of a test cluster: processes known by files of one folder, so that whoever has it can end them."""

import contextlib
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0

# The servers that this process has started, so that they are reaped.
_children: dict[int, "subprocess.Popen[bytes]"] = {}


class Servers:
    """The servers of one folder.

    Args:
        folder: for their process ids and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def launch(self, name: str, program: Path, options: list[str]) -> None:
        """Start a server that does not run."""
        if self.is_alive(name):
            return
        # Debian's etcd 3.4 refuses to run on arm64 without the variable.
        env = {**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(program), *options],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._folder / f"{name}.pid").write_text(str(process.pid))
        _children[process.pid] = process

    def wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        """Return when a server is ready.

        Raises:
            RuntimeError: it has ended, or takes too long.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            if not self.is_alive(name) or time.monotonic() > deadline:
                log = (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} is not ready. The end of its log:\n{log}")
            time.sleep(0.1)

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a server, if it runs."""
        deadline = time.monotonic() + _STOP_SECONDS
        while self.is_alive(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid(name), number if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.05)
            number = 0 if time.monotonic() < deadline else signal.SIGKILL

    def is_alive(self, name: str) -> bool:
        """Whether a server runs, whoever has started it."""
        try:
            pid = self._pid(name)
        except (OSError, ValueError):
            return False
        if pid in _children:
            return _children[pid].poll() is None
        try:
            # A process id may have become somebody else's.
            return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def _pid(self, name: str) -> int:
        return int((self._folder / f"{name}.pid").read_text())


def answers(url: str, *, context: ssl.SSLContext | None = None) -> bool:
    """Whether a URL is answered with 200."""
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def trusting() -> ssl.SSLContext:
    """A context for a server whose certificate is its own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
