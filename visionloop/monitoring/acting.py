"""From what the rules say to what the watch does: raise or restore, block or lift, roll back.

Everything is told from what stands (`visionloop.monitoring.acting_state`), so that a watch that
looks again does nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from visionloop.monitoring.acting_config import ActingConfig
from visionloop.monitoring.acting_rules import back_rules, block_rules, share_rules
from visionloop.monitoring.acting_seen import Service
from visionloop.monitoring.acting_state import (
    BLOCK,
    BLOCKED,
    CALLED_FOR,
    EXCUSE_ENDED,
    LIFTED,
    RAISED,
    RANDOM_SHARE,
    RESTORED,
    ROLLBACK,
    UNBLOCK,
    Standing,
    rule_of,
)
from visionloop.monitoring.falling import Fall
from visionloop.monitoring.rule import NO, OFF, STAY, UNKNOWN, YES, Rule
from visionloop.monitoring.unjudged import LABELS


@dataclass(frozen=True)
class Act:
    """Something that the watch does.

    Attributes:
        decision: ``random_share``, ``block``, ``unblock`` or ``rollback``.
        outcome: What of it, see `visionloop.monitoring.acting_state`.
        subject: What it is about.
        reason: One sentence.
        inputs: What it was decided by, plain values.
    """

    decision: str
    outcome: str
    subject: str
    reason: str
    inputs: Mapping[str, Any]


def judge(
    service: Service,
    falls: Sequence[Fall],
    config: ActingConfig,
    *,
    now: datetime,
    round_id: str,
    held_by: str,
    chosen: bool = False,
) -> tuple[tuple[Rule, ...], tuple[Act, ...]]:
    """Judge every rule, and return what is to be done.

    Args:
        service: What was seen.
        falls: Mean confidences since the last round beside their references.
        config: The section ``watch``.
        now: When it was looked, UTC.
        round_id: The open round, or the one that comes next.
        held_by: Which live run holds the open round, in words; empty where none does.
        chosen: Whether the open round has chosen its samples: no other share reaches it.

    Returns:
        The rules, and the acts in the order in which they are done.
    """
    excused = service.acts.excused
    share = share_rules(service, falls, config, excused.get(RANDOM_SHARE, frozenset()))
    block = block_rules(service, config, excused.get(BLOCK, frozenset()))
    back = (*back_rules(service, config), _stay(service, config, now, held_by))
    acts = [
        _share_act(service, share, config, f"{int(round_id) + chosen:04d}"),
        _block_act(service, block),
        _back_act(service, back),
    ]
    return (*share, *block, *back), tuple(act for act in acts if act is not None)


def _share_act(
    service: Service, rules: Sequence[Rule], config: ActingConfig, round_id: str
) -> Act | None:
    """Return what becomes of the random share from a round on, the next one to choose."""
    stands, raising = service.acts.share, config.raise_random_share
    usual = f"{service.random_share:g}"
    if stands is None:
        found = _new(rules, service.acts.excused.get(RANDOM_SHARE, frozenset()))
        if not found:
            return None
        reason = f"The random share is raised from {usual} to {raising.to:g}: {_told(found)}."
        inputs = _inputs(service, rules, found) | {"from": service.random_share, "to": raising.to}
        return Act(RANDOM_SHARE, RAISED, round_id, reason, inputs)
    rounds = int(round_id) - int(stands.round_id)
    if raising.max_rounds and rounds >= raising.max_rounds:
        why = f"it was raised for {raising.max_rounds} rounds, as long as it may be"
    elif (gone := _gone(stands, rules, service)) is not None:
        why = gone
    else:
        return None
    inputs = _inputs(service, rules, ()) | {
        "from": stands.value,
        "to": service.random_share,
        "excused": sorted({ground for rule in rules for ground in rule.grounds}),
    }
    reason = f"The random share is {usual} again: {why}."
    return Act(RANDOM_SHARE, RESTORED, round_id, reason, inputs)


def act_on_labels(service: Service, config: ActingConfig) -> Act | None:
    """Return what doubted labels alone call for: publication is blocked, or free again.

    It is free again where they alone had blocked it, and no flag stands that would block it anew.
    Where errors of the server may do so, they have to be counted, too: that is left to a watch.
    Where nothing is blocked, and doubted labels that a person had excused are gone, the excuse
    ends.

    Args:
        service: What was seen of labels and flags; errors of the server are none of it.
        config: The section ``watch``.
    """
    stands, blocking = service.acts.block, config.block_publication
    kinds = blocking.flags
    if stands is None:
        kinds = tuple(kind for kind in kinds if kind == LABELS)
    elif blocking.max_error_rate or not stands.grounds or not all(map(_of_labels, stands.grounds)):
        return None
    asked = blocking.model_copy(update={"max_error_rate": 0.0, "flags": kinds})
    rules = block_rules(
        service,
        config.model_copy(update={"block_publication": asked}),
        service.acts.excused.get(BLOCK, frozenset()),
    )
    act = _block_act(service, rules)
    return _excuse_act(service, rules) if act is None and stands is None else act


def _of_labels(ground: str) -> bool:
    """Return whether a ground of a block is that labels are doubted."""
    return rule_of(ground) == "label_suspects" or ground.startswith(f"flags_block: {LABELS} of ")


def _excuse_act(service: Service, rules: Sequence[Rule]) -> Act | None:
    """Return that what a person had excused of doubted labels is gone; None where it is not so."""
    excused = service.acts.excused.get(BLOCK, frozenset())
    there = {ground for rule in rules for ground in rule.grounds}
    told = {rule.name: rule for rule in rules if rule.verdict not in (OFF, UNKNOWN)}
    gone = {g for g in excused - there if _of_labels(g) and rule_of(g) in told}
    if not gone:
        return None
    found = [told[name] for name in sorted({rule_of(ground) for ground in gone})]
    reason = f"What a person had excused is gone, and would block again: {_told(found)}."
    inputs = _inputs(service, rules, ()) | {"excused": sorted(excused - gone)}
    return Act(UNBLOCK, EXCUSE_ENDED, service.endpoint, reason, inputs)


def _block_act(service: Service, rules: Sequence[Rule]) -> Act | None:
    stands = service.acts.block
    if stands is None:
        found = _new(rules, service.acts.excused.get(BLOCK, frozenset()))
        if not found:
            return None
        reason = f"Publication is blocked: {_told(found)}."
        return Act(BLOCK, BLOCKED, service.endpoint, reason, _inputs(service, rules, found))
    gone = _gone(stands, rules)
    if gone is None:
        return None
    reason = f"Models may be published again: {gone}."
    return Act(UNBLOCK, LIFTED, service.endpoint, reason, _inputs(service, rules, ()))


def _new(rules: Sequence[Rule], excused: frozenset[str]) -> list[Rule]:
    return [rule for rule in rules if rule.verdict == YES and set(rule.grounds) - excused]


def _gone(stands: Standing, rules: Sequence[Rule], service: Service | None = None) -> str | None:
    """Return why what an act stands for is gone, None where it is not, or cannot be told.

    Args:
        stands: The act.
        rules: What could set it off, as it is now.
        service: Given where an act is about the model in service: another model is none of its
            concern.
    """
    if any(rule.verdict == YES for rule in rules):
        return None
    causes = [rule for rule in rules if rule.name in stands.causes]
    if any(rule.verdict == UNKNOWN for rule in causes):
        other = service is not None and service.in_service != stands.model_id
        return "another model is in service since" if other else None
    if not causes or all(rule.verdict == OFF for rule in causes):
        return "the rule that set it off is off now"
    return _told([rule for rule in causes if rule.verdict == NO])


def _stay(service: Service, config: ActingConfig, now: datetime, held_by: str) -> Rule:
    """Judge what keeps the model in service where it is, whatever is worse."""
    back, acts = config.roll_back, service.acts
    name = "stay_in_service"
    if not back.enabled:
        return Rule(name, STAY, OFF, None, None, "no model is rolled back by rule")
    hours = None
    reasons = []
    if not service.in_service:
        reasons.append("no model is in service")
    elif not service.before or not service.before_uri:
        reasons.append("no model was in service before it")
    elif service.before in acts.rolled_back:
        reasons.append("the model before was rolled back itself")
    if service.in_service in acts.rolled_back:
        reasons.append("it was rolled back once, and somebody put it back")
    if service.in_service in acts.tried:
        reasons.append("the model before could not be brought back")
    if acts.last_swap is not None:
        hours = (now - acts.last_swap).total_seconds() / 3600
        # A clock that jumped back tells no time.
        if back.min_hours and hours < back.min_hours:
            reasons.append(
                f"a model was rolled back {max(hours, 0.0):.1f} hours ago, and "
                f"`min_hours` is {back.min_hours:g}"
            )
    if acts.called_for is not None:
        reasons.append("a rollback is under way")
    if held_by:
        reasons.append(f"a round is being run by {held_by}")
    told = "; ".join(reasons) or "nothing keeps it"
    return Rule(name, STAY, YES if reasons else NO, hours, back.min_hours, told)


def _back_act(service: Service, rules: Sequence[Rule]) -> Act | None:
    *worse, stay = rules
    found = [rule for rule in worse if rule.verdict == YES]
    if not found or stay.verdict != NO:
        return None
    reason = (
        f"Model {service.before} comes back in the place of {service.in_service}: {_told(found)}."
    )
    inputs = _inputs(service, rules, found) | {
        "before": service.in_service,
        "uri": service.before_uri,
    }
    return Act(ROLLBACK, CALLED_FOR, service.before, reason, inputs)


def _inputs(service: Service, rules: Sequence[Rule], found: Sequence[Rule]) -> dict[str, Any]:
    return {
        "by": "rule",
        "because": _told(found),
        "causes": [rule.name for rule in found],
        "grounds": sorted({ground for rule in found for ground in rule.grounds}),
        "model_id": service.in_service,
        "n_unchecked": service.suspects.n_unchecked if service.suspects else None,
        "rules": [asdict(rule) for rule in rules],
    }


def _told(rules: Sequence[Rule]) -> str:
    return "; ".join(rule.told for rule in rules)
