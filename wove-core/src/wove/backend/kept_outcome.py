"""What a worker keeps of the outcome of one run, so that neither a failing network nor another delivery loses it."""

from functools import cached_property

from wove.backend.events import Event
from wove.backend.spool import Spool, spool_name


class KeptOutcome:
    """The outcome of one run in the spool.

    Attributes:
        spool: where it is kept.

    Args:
        kept: where to keep it.
        callback_url, run_id: the run's.
        delivered_once: the backend will not deliver the job again: keep an outcome only while it cannot be delivered.
    """

    def __init__(self, kept: Spool, callback_url: str, run_id: str, *, delivered_once: bool) -> None:
        self.spool = kept
        self._run = callback_url, run_id
        self._delivered_once = delivered_once
        self._is_kept = False
        self._is_expected = not delivered_once

    @cached_property
    def _name(self) -> str:
        # Most runs of a backend that delivers once end without it.
        return spool_name(*self._run)

    def expect_nothing(self) -> None:
        """Do not look for the outcome of an earlier delivery: there has been none.

        A thread that looks for a file lets go of the interpreter, and may wait for it for as long as a task takes.
        """
        self._is_expected = False

    def load(self) -> Event | None:
        """Return the outcome of an earlier delivery, if there is one."""
        kept = self.spool.load(self._name) if self._is_expected else None
        self._is_kept = kept is not None
        return kept

    def has_finished(self) -> bool:
        """Tell whether the run has been executed on this host, and its outcome delivered."""
        return self.spool.has_finished(self._name)

    def keep_for_redelivery(self, final: Event) -> None:
        """Keep an outcome, unless there will be no other delivery."""
        if not self._delivered_once:
            self.keep(final)

    def keep(self, final: Event) -> None:
        """Keep an outcome, unless that has been done."""
        if not self._is_kept:
            self._is_kept = True
            self.spool.save(self._name, final)

    def replace(self, instead: Event) -> None:
        """Keep another one in place of an outcome that the weave does not take."""
        if self._is_kept:
            self.spool.save(self._name, instead)

    def settle(self, *, accepted: bool) -> None:
        """Forget the outcome, because it has been delivered, or nobody wants it."""
        if accepted and not self._delivered_once:
            self.spool.mark_finished(self._name)
        if self._is_kept or not self._delivered_once:
            self.spool.remove(self._name)
