"""One rule of the watch, and what it found."""

from __future__ import annotations

from dataclasses import dataclass

# What a rule calls for.
START, RESUME, WAIT = "start", "resume", "wait"
RAISE, BLOCK, ROLL_BACK, STAY = "raise", "block", "roll back", "stay"
# What a rule says.
YES, NO, OFF, UNKNOWN = "yes", "no", "off", "unknown"
SAID = {YES: "met", NO: "not met", OFF: "off", UNKNOWN: "cannot be told"}


@dataclass(frozen=True)
class Rule:
    """One rule and what it says.

    Attributes:
        name: The rule.
        effect: What it calls for when it is met: ``start``, ``resume`` or ``wait``; ``raise`` the
            random share, ``block`` publication, ``roll back``, or ``stay`` with the model.
        verdict: ``yes`` (met), ``no``, ``off`` (by configuration) or ``unknown``.
        value: What was measured; None where there is nothing to measure.
        threshold: What it was held against.
        told: The rule's finding in words, fit for the middle of a sentence.
        n: Samples, requests or flags behind it; None where nothing is counted.
        grounds: What met it, each by a name that stays the same as long as it holds, which begins
            with the rule's.
    """

    name: str
    effect: str
    verdict: str
    value: float | None
    threshold: float | None
    told: str
    n: int | None = None
    grounds: tuple[str, ...] = ()
