"""When a round has enough answers to go on without the rest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from visionloop.labeling.config import ReadyConfig
from visionloop.words import counted

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Standing:
    """How far the requests of a round are; skips and conflicts that nobody asks about count too.

    Attributes:
        training: Requests beside those for the holdout.
        training_answered: Those of them that are answered.
        holdout: Requests for the holdout.
        holdout_answered: Those of them that are answered.
        asked_at: When the round first asked, UTC; None where it asked nothing.
    """

    training: int
    training_answered: int
    holdout: int
    holdout_answered: int
    asked_at: datetime | None = None

    @property
    def requested(self) -> int:
        """All requests."""
        return self.training + self.holdout

    @property
    def answered(self) -> int:
        """All that are answered."""
        return self.training_answered + self.holdout_answered


@dataclass(frozen=True)
class Readiness:
    """Whether a round goes on.

    Attributes:
        ready: Whether it does.
        why: Why, or why not, in words that fit the middle of a sentence.
        answered: Requests that are answered; `why` tells the same number.
        deadline: From when on fewer answers are enough, UTC; None where there is no such time.
    """

    ready: bool
    why: str
    answered: int
    deadline: datetime | None = None


def readiness(config: ReadyConfig, standing: Standing, now: datetime) -> Readiness:
    """Decide whether a round goes on without the requests that are still open.

    Args:
        config: The section `labeling.ready`.
        standing: How far its requests are.
        now: UTC.
    """
    n, there = standing.requested, standing.answered
    deadline = None
    if config.deadline_hours and standing.asked_at is not None:
        deadline = standing.asked_at + timedelta(hours=config.deadline_hours)
    if there == n:
        return Readiness(True, "every request is answered", there, deadline)
    told = f"{there:,} of {counted(n, 'request is', 'requests are')} answered"
    share = standing.training_answered >= config.share * standing.training - _ROUNDING
    whole = standing.holdout_answered == standing.holdout
    if share and whole:
        why = f"{told}, and `labeling.ready.share` {config.share:g} is enough"
        return Readiness(True, why, there, deadline)
    if deadline is not None and now >= deadline:
        since = f"its deadline was {deadline:%Y-%m-%d %H:%M} UTC"
        held = f"{standing.holdout_answered:,} of {standing.holdout:,} of the holdout"
        judged = standing.holdout_answered >= config.least * standing.holdout - _ROUNDING
        if judged and there >= config.least * n - _ROUNDING:
            return Readiness(True, f"{told}, and {since}", there, deadline)
        told = told if judged else f"{told}, {held}"
        why = f"{told}, {since}, but `labeling.ready.least` is {config.least:g}"
        return Readiness(False, why, there, deadline)
    if share and not whole:
        told += f"; {standing.holdout - standing.holdout_answered:,} of the holdout are not"
    if deadline is not None:
        told += f"; from {deadline:%Y-%m-%d %H:%M} UTC on, {config.least:.0%} are enough"
    return Readiness(False, told, there, deadline)
