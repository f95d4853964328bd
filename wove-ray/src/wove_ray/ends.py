"""What the end of one of Ray's tasks means for the run that it carried."""

import re

from ray import exceptions

from wove.integrations.base import JobState

# What a process that is dead has posted is here within this time.
_LAST_EVENT_SECONDS = 0.5
_LONGEST_REASON = 600
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SENTENCE = re.compile(r"\.(?=\s)")

_NO_WOVE = (
    "Ray's workers have no Wove: install wove-core[dispatch] where they run, or give "
    "remote_options={'runtime_env': {'pip': [...]}}"
)


def state_of(error: BaseException | None, outcome: bytes | None = None) -> JobState:
    """Return the state of a run whose task has ended.

    Args:
        error: what Ray raises where the task's value would be; None if there is one.
        outcome: the value, where the outcome has come back with it.
    """
    if error is None:
        return JobState("finished", outcome=outcome)
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.TaskCancelledError) or isinstance(cause, exceptions.TaskCancelledError):
        return JobState("cancelled", reason="Ray has cancelled the task", grace=_LAST_EVENT_SECONDS)
    if isinstance(cause, ModuleNotFoundError) and (cause.name or "").partition(".")[0] == "wove":
        return JobState("failed", reason=_NO_WOVE, grace=_LAST_EVENT_SECONDS)
    return JobState("failed", reason=_words(cause or error), grace=_LAST_EVENT_SECONDS)


def _words(error: BaseException) -> str:
    text = " ".join(_COLOUR.sub("", str(error)).split())
    if len(text) > _LONGEST_REASON:
        # Ray explains at length; the first sentences say what happened.
        cut = text[:_LONGEST_REASON]
        ends = [match.start() for match in _SENTENCE.finditer(cut)]
        text = cut[: ends[-1] + 1] if ends else f"{cut}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
