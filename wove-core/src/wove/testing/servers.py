"""What a test does about a server that it needs: its program, such as ``redis-server``, and its port."""

import os
import shutil
import socket
import sys

# Debian installs servers here, and an ordinary user's PATH leaves these directories out.
_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def require_program(name: str, *, install: str) -> str:
    """Return the path of a program that a test starts.

    Where it is missing the calling test is skipped, with the command that installs it; when the environment variable
    ``CI`` is set the test fails instead, so that a server which nobody installed cannot hide what was not tested.
    Where no tests run, because somebody starts a server by hand, the process ends with that command.

    Args:
        name: the program, looked for on PATH and in the system's directories.
        install: the command that installs it, e.g. ``"apt-get install redis-server"``.
    """
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_DIRECTORIES])
    found = shutil.which(name, path=search)
    if found is None:
        message = f"{name} is not installed. Install it with: {install}"
        if "pytest" not in sys.modules:
            raise SystemExit(message)
        import pytest

        if os.environ.get("CI"):
            pytest.fail(f"{message} (an error, not a skip, because CI is set)", pytrace=False)
        pytest.skip(message)
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of an address that nobody listens on."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
