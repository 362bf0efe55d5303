"""Drift over rounds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

DRIFT, STABLE, TOO_FEW, NOTHING_TO_COMPARE = (
    "drift",
    "stable",
    "too few to say",
    "nothing to compare",
)


@dataclass(frozen=True)
class DriftPoint:
    """One comparison of a window with its reference.

    Attributes:
        round_id: Round whose arrivals or harvest are judged.
        state: ``drift``, ``stable``, ``too few to say`` or ``nothing to compare``.
        score: What was measured; None where nothing was.
        threshold: What it was held against; None where nothing was.
        reference: What it was compared with, in words.
        n: Size of the window.
        n_reference: Size of the reference.
        p: p value; None where there is none.
        reason: Why nothing can be said, "" otherwise.
    """

    round_id: str
    state: str
    score: float | None = None
    threshold: float | None = None
    reference: str = ""
    n: int = 0
    n_reference: int = 0
    p: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class DriftSeries:
    """One measure of one subject over the rounds.

    Attributes:
        subject: Name of the endpoint or source.
        subject_type: ``endpoint`` or ``source``.
        kind: Kind of the drift, such as ``confidence_drift``.
        title: What it measures, in words.
        unit: Unit of score and threshold, "" for none.
        points: In ascending order of rounds.
        model: Name of the model that answered, "" where no model is concerned.
        standing: Whether a flag of it stands now.
    """

    subject: str
    subject_type: str
    kind: str
    title: str
    unit: str = ""
    points: tuple[DriftPoint, ...] = ()
    model: str = ""
    standing: bool = False

    @property
    def state(self) -> str:
        """The state of its newest point."""
        return self.points[-1].state if self.points else NOTHING_TO_COMPARE

    @property
    def said(self) -> str:
        """Its state in words, and whether its flag says otherwise by now."""
        if self.standing and self.state != DRIFT:
            return f"{self.state}, its flag stands"
        if self.state == DRIFT and not self.standing:
            return "drift, its flag was withdrawn since"
        return self.state
