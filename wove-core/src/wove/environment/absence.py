"""What to tell a user whose worker service does not answer: how Wove's own is started where it was looked for."""

import shlex

from wove.environment.network_settings import NetworkSettings

# Where the services listen unless they are told otherwise: `python -m wove.services --help`.
_PATH = "/wove/tasks"


def advice_for_absence(settings: NetworkSettings) -> str:
    """Return what to do about a service that cannot be reached, as sentences."""
    place = "" if settings.local else " on its own host"
    return (
        "Is the service running, and does this host reach it? "
        f"Wove's own is started{place} with `{_start_command(settings)}`."
    )


def _start_command(settings: NetworkSettings) -> str:
    words = ["python -m wove.services", settings.transport, "--host", _host(settings)]
    if settings.port:
        words += ["--port", str(settings.port)]
    path = settings.target.partition("?")[0]
    if settings.transport != "grpc" and path != _PATH:
        words += ["--path", shlex.quote(path)]
    if settings.security.enabled or not settings.local:
        words += ["--security", "env:WOVE_WORKER_SECRET"]
    if settings.tls:
        words += ["--tls-cert cert.pem", "--tls-key key.pem"]
    return " ".join(words)


def _host(settings: NetworkSettings) -> str:
    if not settings.local:
        return "0.0.0.0"
    return "::1" if "::1" in settings.host else "127.0.0.1"
