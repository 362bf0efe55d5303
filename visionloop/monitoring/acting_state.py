"""Which acts of the watch stand: told from the rows of the table ``decisions`` alone.

=================  ========================  =====================================================
decision           outcome                   subject
=================  ========================  =====================================================
``random_share``   ``raised``, ``restored``  the round from which on it holds
``block``          ``blocked``               the endpoint
``unblock``        ``lifted``, ``by_hand``   the endpoint
                   ``excuse_ended``          the endpoint: what a person had excused is gone while
                                             nothing is blocked; if it comes again, it blocks
``rollback``       ``called_for``            the model that is to come back; written before the act
                   ``published``             the model that came back; a person's too
                   ``failed``                the model that could not be brought back
                   ``overtaken``             the model that need not come back: another one than the
                                             one to be taken back was in service by then
=================  ========================  =====================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

RANDOM_SHARE, BLOCK, UNBLOCK, ROLLBACK, WATCH = (
    "random_share", "block", "unblock", "rollback", "watch"
)  # fmt: skip
RAISED, RESTORED = "raised", "restored"
BLOCKED, LIFTED, BY_HAND, EXCUSE_ENDED = "blocked", "lifted", "by_hand", "excuse_ended"
CALLED_FOR, FAILED, PUBLISHED, OVERTAKEN = "called_for", "failed", "published", "overtaken"
# What the reason of whatever was blocked begins with.
BLOCKED_SINCE = "blocked since"
ACTS = (RANDOM_SHARE, BLOCK, UNBLOCK, ROLLBACK)


@dataclass(frozen=True)
class Standing:
    """An act that holds until it is taken back.

    Attributes:
        since: When it was decided, UTC.
        round_id: The round in which it was; of a random share the first that it holds for.
        why: One sentence.
        because: What it is for, without what is done; fit for the end of a sentence.
        causes: The rules that were met, by name.
        grounds: What met them, see `visionloop.monitoring.rule.Rule`.
        model_id: The model that was in service.
        value: Of a random share: to what it is raised.
        n_unchecked: Labels that could not be judged then; None where nobody had judged any.
    """

    since: datetime
    round_id: str
    why: str
    because: str = ""
    causes: frozenset[str] = frozenset()
    grounds: frozenset[str] = frozenset()
    model_id: str = ""
    value: float | None = None
    n_unchecked: int | None = None


@dataclass(frozen=True)
class Swap:
    """A model that took the place of another, or is to.

    Attributes:
        model_id: The model that comes back.
        before: The model whose place it takes.
        uri: The bundle of the model that comes back, where it is known.
        at: When it was decided, UTC.
        why: One sentence.
    """

    model_id: str
    before: str
    uri: str
    at: datetime
    why: str


@dataclass(frozen=True)
class StandingActs:
    """What holds now.

    Attributes:
        share: The raised random share; None where it is the configuration's.
        block: Why nothing is published; None where publication is free.
        rolled_back: Who took the place of each model that was rolled back, by that model.
        called_for: A rollback that was decided and neither done nor given up yet.
        tried: Models that a rollback from failed: by rule it is not tried again.
        last_swap: When a model was last rolled back; None before the first time.
        excused: What set off an act that was taken back all the same, a person's word or its time
            being over, and has not been gone since: it sets off none again. By act.
    """

    share: Standing | None = None
    block: Standing | None = None
    rolled_back: Mapping[str, Swap] = field(default_factory=dict)
    called_for: Swap | None = None
    tried: frozenset[str] = frozenset()
    last_swap: datetime | None = None
    excused: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def random_share(self) -> float | None:
        """To what the random share is raised; None where it is the configuration's."""
        return self.share.value if self.share else None

    @property
    def blocked(self) -> str | None:
        """Why nothing is published, with the time since; None where publication is free."""
        if self.block is None:
            return None
        return f"{BLOCKED_SINCE} {self.block.since:%Y-%m-%d %H:%M} UTC: {self.block.because}"


def standing_acts(decisions: Iterable[Mapping[str, Any]]) -> StandingActs:
    """Tell what holds.

    Args:
        decisions: Rows of ``decisions``, in any order. Those of `ACTS` are enough for what stands;
            what is excused needs those of ``watch``, too.
    """
    share: Standing | None = None
    block: Standing | None = None
    called_for: Swap | None = None
    rolled_back: dict[str, Swap] = {}
    tried: set[str] = set()
    last_swap: datetime | None = None
    excused: dict[str, frozenset[str]] = {}
    for row in sorted(decisions, key=_in_order):
        what, outcome = row["decision"], row["outcome"]
        if what == RANDOM_SHARE:
            first = row["subject"] or row["round_id"] or ""
            share = replace(_standing(row), round_id=first) if outcome == RAISED else None
            if outcome == RESTORED:
                excused[RANDOM_SHARE] = _excused(row)
        elif what == BLOCK:
            block = _standing(row)
        elif what == UNBLOCK:
            block = None
            excused[BLOCK] = _excused(row)
        elif what == WATCH and any(excused.values()):
            excused = _still_excused(row, excused)
        elif what == ROLLBACK and outcome in (CALLED_FOR, FAILED, PUBLISHED, OVERTAKEN):
            swap = _swap(row)
            called_for = swap if outcome == CALLED_FOR else None
            if outcome == FAILED:
                tried.add(swap.before)
            elif outcome == PUBLISHED:
                rolled_back[swap.before] = swap
                last_swap = swap.at
    return StandingActs(share, block, rolled_back, called_for, frozenset(tried), last_swap, excused)


def _in_order(row: Mapping[str, Any]) -> tuple[str, datetime, bool]:
    # Clocks of pods differ, rounds do not. What a watch did comes after what it saw.
    return row["round_id"] or "", row["decided_at"], row["decision"] != WATCH


def _inputs(row: Mapping[str, Any]) -> dict[str, Any]:
    held = json.loads(row["inputs"] or "{}")
    return held if isinstance(held, dict) else {}


def _standing(row: Mapping[str, Any]) -> Standing:
    inputs = _inputs(row)
    return Standing(
        row["decided_at"],
        row["round_id"] or "",
        row["reason"] or "",
        str(inputs.get("because") or row["reason"] or "").rstrip("."),
        frozenset(inputs.get("causes") or ()),
        frozenset(inputs.get("grounds") or ()),
        str(inputs.get("model_id") or ""),
        inputs.get("to"),
        inputs.get("n_unchecked"),
    )


def _excused(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(_inputs(row).get("excused") or ())


def _still_excused(
    row: Mapping[str, Any], excused: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Keep of what is excused what this watch saw again, or could not tell."""
    seen = _inputs(row).get("grounds")
    if seen is None:  # of a watch that knew no acts
        return dict(excused)
    there, untold = set(seen.get("there") or ()), set(seen.get("untold") or ())
    return {
        act: frozenset(g for g in grounds if g in there or rule_of(g) in untold)
        for act, grounds in excused.items()
    }


def rule_of(ground: str) -> str:
    """Return the name of the rule that a ground belongs to."""
    return ground.partition(": ")[0]


def _swap(row: Mapping[str, Any]) -> Swap:
    inputs = _inputs(row)
    return Swap(
        row["subject"] or "",
        str(inputs.get("before") or ""),
        str(inputs.get("uri") or ""),
        row["decided_at"],
        row["reason"] or "",
    )
