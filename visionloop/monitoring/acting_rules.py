"""The rules by which the watch raises the random share, blocks publication or rolls back.

A rate or an accuracy counts only when it is beyond its threshold *and* significantly so. Each is
looked at again and again, so that each look has only a share of the level
(`visionloop.monitoring.looks`). What is beyond the threshold but may be chance cannot be told: it
sets off nothing, and takes nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from visionloop.monitoring.acting_config import ActingConfig
from visionloop.monitoring.acting_seen import Requests, Service, StandingFlags, Suspects
from visionloop.monitoring.acting_state import Standing
from visionloop.monitoring.differences import paired_difference, paired_p_value
from visionloop.monitoring.drift_kinds import DRIFT_KINDS
from visionloop.monitoring.falling import Fall
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.kinds import kind_of
from visionloop.monitoring.looks import level_of_look
from visionloop.monitoring.rule import BLOCK, NO, OFF, RAISE, ROLL_BACK, UNKNOWN, YES, Rule
from visionloop.monitoring.unjudged import LABELS
from visionloop.words import counted

DRIFT = frozenset(kind.name for kind in DRIFT_KINDS)
# Means of float32 carry no more than that.
_ROUNDING = 1e-9


def share_rules(
    service: Service, falls: Sequence[Fall], config: ActingConfig, excused: frozenset[str]
) -> tuple[Rule, ...]:
    """Judge what raises the random share.

    Args:
        service: What was seen.
        falls: Mean confidences since the last round beside their references.
        config: The section ``watch``.
        excused: Grounds that set off nothing.

    Returns:
        The rules with their findings.
    """
    raising = config.raise_random_share
    rules = [
        _drift(service, on=raising.on_drift),
        _confidence(falls, raising.min_confidence_drop),
    ]
    if raising.flags:
        rules.append(_flags(service, raising.flags, RAISE, service.acts.share))
    if raising.to <= service.random_share + _ROUNDING:
        why = f"the random share is {service.random_share:g} already" if raising.to else "off"
        return tuple(_off(rule, why) for rule in rules)
    return tuple(_excuse(rule, excused) for rule in rules)


def block_rules(
    service: Service, config: ActingConfig, excused: frozenset[str]
) -> tuple[Rule, ...]:
    """Judge what blocks publication.

    Args:
        service: What was seen.
        config: The section ``watch``.
        excused: Grounds that set off nothing.

    Returns:
        The rules with their findings.
    """
    blocking = config.block_publication
    rules = [
        _suspects(service, blocking.max_label_suspects, blocking.min_labels, config),
        _errors("error_rate", BLOCK, service, blocking.max_error_rate, config),
    ]
    if blocking.flags:
        rules.append(_flags(service, blocking.flags, BLOCK, service.acts.block))
    return tuple(_excuse(rule, excused) for rule in rules)


def back_rules(service: Service, config: ActingConfig) -> tuple[Rule, ...]:
    """Judge what calls for the model before.

    Args:
        service: What was seen.
        config: The section ``watch``.

    Returns:
        The rules with their findings.
    """
    return (_accuracy(service, config), _more_errors(service, config))


def _drift(service: Service, *, on: bool) -> Rule:
    name = "drift_stands"
    found = [one for one in service.flags if one.kind in DRIFT]
    n = sum(one.n for one in found)

    def rule(verdict: str, told: str) -> Rule:
        grounds = (f"{name}: {one.kind} of {one.of} {one.model_id}" for one in found)
        return Rule(name, RAISE, verdict, n, 1, told, n, tuple(sorted(grounds)))

    told = f"drift stands: {_named(found)}" if found else "no flag of drift stands"
    if not on:
        return rule(OFF, f"{told}, and `on_drift` is off")
    if found:
        return rule(YES, told)
    if not service.n_comparisons and not service.n_judged:
        return rule(UNKNOWN, f"{told}, and nothing could be compared")
    return rule(NO, told)


def _confidence(falls: Sequence[Fall], least: float) -> Rule:
    name = "confidence_fell"
    if not least:
        return Rule(name, RAISE, OFF, None, least, "a fall of the confidence raises nothing")
    judged = [fall for fall in falls if fall.state != "too few to say"]
    if not judged:
        n = max((fall.n_now for fall in falls), default=0)
        told = f"{counted(n, 'confidence')} since the last round, too few to compare"
        return Rule(name, RAISE, UNKNOWN, None, least, told, n)
    beyond = [fall for fall in judged if fall.drop >= least - _ROUNDING]
    real = [fall for fall in beyond if fall.state == "real"]
    worst = max(real or beyond or judged, key=lambda fall: fall.drop)
    told = (
        f"mean confidence of {worst.endpoint or 'the endpoint'} is {worst.now:.3f} "
        f"(n = {worst.n_now:,}), of {worst.reference} {worst.before:.3f} (n = {worst.n_before:,})"
    )
    told += ", which may be chance" if beyond and not real else ""
    grounds = tuple(sorted({f"{name}: {fall.endpoint} {fall.model_id}" for fall in real}))
    verdict = YES if real else UNKNOWN if beyond else NO
    return Rule(name, RAISE, verdict, worst.drop, least, told, worst.n_now, grounds)


def _flags(service: Service, kinds: Sequence[str], effect: str, stands: Standing | None) -> Rule:
    found = [one for one in service.flags if one.kind in kinds]
    n = sum(one.n for one in found)
    name = "flags_block" if effect == BLOCK else "flags_raise"
    grounds = tuple(sorted(f"{name}: {one.kind} of {one.of} {one.model_id}" for one in found))
    titles = ", ".join(kind_of(kind).title for kind in kinds)
    told = f"{counted(n, 'flag stands', 'flags stand')}: {_named(found)}" if found else ""
    told = told or f"no flag stands of {titles}"
    doubted = f"{name}: {LABELS} of "
    concerned = stands is None or any(ground.startswith(doubted) for ground in stands.grounds)
    why = _unjudged(service, stands) if LABELS in kinds and concerned and not found else ""
    if why:
        # A label that nobody could judge has no flag, and may be wrong all the same.
        return Rule(name, effect, UNKNOWN, n, 1, f"{told}, and {why}", n)
    return Rule(name, effect, YES if found else NO, n, 1, told, n, grounds)


def _unjudged(service: Service, stands: Standing | None) -> str:
    """Return why no flag of a doubted label does not mean that none is doubted; empty if it does.

    Args:
        service: What was seen.
        stands: What doubted labels have set off; None for nothing.
    """
    seen = service.suspects
    if seen is None or not seen.n_checked:
        return "no label could be checked"
    more = _no_longer_checked(seen, stands)
    return f"{_unchecked(more)} than when the rule was met" if more else ""


def _no_longer_checked(seen: Suspects, stands: Standing | None) -> int:
    """Return how many labels at most could be judged when an act began, and cannot be now."""
    if stands is None or stands.n_unchecked is None:
        return 0
    return max(seen.n_unchecked - stands.n_unchecked, 0)


def _unchecked(n: int) -> str:
    return f"{counted(n, 'more label', 'more labels')} could not be checked"


def _suspects(service: Service, most: float, least: int, config: ActingConfig) -> Rule:
    name = "label_suspects"
    if not most:
        return Rule(name, BLOCK, OFF, None, most, "doubted labels block nothing")
    seen = service.suspects
    if seen is None or not seen.n_checked:
        return Rule(name, BLOCK, UNKNOWN, None, most, "no label could be checked yet", 0)
    n, k = seen.n_checked, seen.n_suspected
    told = f"{k:,} of {counted(n, 'checked label')} {'is' if k == 1 else 'are'} doubted"
    look = max(seen.look, 1)
    rule = _rate(name, BLOCK, (k, n), most, least, look, config.act_significance, told)
    stands = service.acts.block
    more = _no_longer_checked(seen, stands) if stands and name in stands.causes else 0
    if rule.verdict == NO and (k + more) / (n + more) > most:
        told = f"{rule.told}; but {_unchecked(more)} than when the rule was met, and may be doubted"
        return replace(rule, verdict=UNKNOWN, told=told)
    return rule


def _errors(name: str, effect: str, service: Service, most: float, config: ActingConfig) -> Rule:
    if not most:
        return Rule(name, effect, OFF, None, most, "errors of the server were not looked at")
    seen = service.requests
    if seen is None or seen.problem or not seen.model_id:
        return Rule(name, effect, UNKNOWN, None, most, _uncounted(seen), 0)
    told = (
        f"{seen.errors:,} of {counted(seen.requests, 'request')} since the last judgement ended "
        "in an error of the server"
    )
    counts, look, least = (seen.errors, seen.requests), max(seen.looks, 1), config.act_min_requests
    return _rate(name, effect, counts, most, least, look, config.act_significance, told)


def _uncounted(seen: Requests | None) -> str:
    if seen is None:
        return "no model is in service whose requests are counted"
    return f"the requests could not be counted: {seen.problem or 'nothing was read'}"


def _rate(
    name: str,
    effect: str,
    counts: tuple[int, int],
    most: float,
    least: int,
    look: int,
    significance: float,
    told: str,
) -> Rule:
    """Judge whether a rate lies above a threshold, by the exact binomial test at this look."""
    from scipy.stats import binomtest

    k, n = counts
    if n < least:
        told += f", too few to say: {least:,} are needed"
        return Rule(name, effect, UNKNOWN, None, most, told, n)
    rate = wilson(k, n)
    told += f" ({rate.value:.1%}, 95% interval {rate.low:.1%} to {rate.high:.1%}; most {most:.1%})"
    if rate.value <= most:
        return Rule(name, effect, NO, rate.value, most, told, n)
    p_value = float(binomtest(k, n, most, alternative="greater").pvalue)
    if p_value >= level_of_look(look, significance):
        return Rule(name, effect, UNKNOWN, rate.value, most, f"{told}, which may be chance", n)
    return Rule(name, effect, YES, rate.value, most, told, n, (f"{name}: {effect}",))


def _accuracy(service: Service, config: ActingConfig) -> Rule:
    name, back = "worse_accuracy", config.roll_back
    least, seen = back.min_accuracy_drop, service.pairs
    if not back.enabled or not least:
        return Rule(name, ROLL_BACK, OFF, None, least, "the two models' accuracy was not looked at")
    if seen is None or not seen.n:
        told = "no random pick was labelled since, about which both models have answered"
        return Rule(name, ROLL_BACK, UNKNOWN, None, least, told, 0)
    told = (
        f"of {counted(seen.n, 'random pick')} labelled since, the model before alone is right "
        f"about {seen.n_worse:,} and the one in service alone about {seen.n_better:,}"
    )
    if seen.n < back.min_labels:
        told += f", too few to say: {back.min_labels:,} are needed"
        return Rule(name, ROLL_BACK, UNKNOWN, None, least, told, seen.n)
    span = paired_difference(seen.n_worse, seen.n_better, seen.n)
    told += f" (worse by {span.value:.1%}, 95% interval {span.low:.1%} to {span.high:.1%})"
    if seen.drop < least - _ROUNDING:
        return Rule(name, ROLL_BACK, NO, seen.drop, least, told, seen.n)
    level = level_of_look(max(seen.looks, 1), config.act_significance)
    if paired_p_value(seen.n_worse, seen.n_better) >= level:
        told += ", which may be chance"
        return Rule(name, ROLL_BACK, UNKNOWN, seen.drop, least, told, seen.n)
    grounds = (f"{name}: {service.in_service}",)
    return Rule(name, ROLL_BACK, YES, seen.drop, least, told, seen.n, grounds)


def _more_errors(service: Service, config: ActingConfig) -> Rule:
    back = config.roll_back
    most = back.max_error_rate if back.enabled else 0.0
    rule = _errors("more_errors", ROLL_BACK, service, most, config)
    if rule.verdict != YES or service.requests is None:
        return rule
    return _beside_before(rule, service.requests, config)


def _beside_before(rule: Rule, seen: Requests, config: ActingConfig) -> Rule:
    """Judge whether the model before had fewer errors, by Fisher's exact test."""
    from scipy.stats import fisher_exact

    n, k = seen.before
    if n < config.act_min_requests:
        told = f"{rule.told}; of the model before {counted(n, 'request is', 'requests are')} known"
        return replace(rule, verdict=UNKNOWN, told=f"{told}, too few to compare", grounds=())
    told = f"{rule.told}; with the model before {k:,} of {n:,} did"
    table = [[seen.errors, seen.requests - seen.errors], [k, n - k]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)
    if p_value >= level_of_look(max(seen.looks, 1), config.act_significance):
        return replace(rule, verdict=NO, told=f"{told}, hardly fewer", grounds=())
    return replace(rule, told=told)


def _named(found: Sequence[StandingFlags]) -> str:
    """Name at most three flags."""
    named = [
        f"{kind_of(one.kind).title} ({one.of})" if one.of else kind_of(one.kind).title
        for one in found
    ]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return ", ".join(named[:3]) + more


def _off(rule: Rule, why: str) -> Rule:
    told = rule.told if why == "off" else f"{rule.told}; {why}"
    return Rule(rule.name, rule.effect, OFF, rule.value, rule.threshold, told, rule.n)


def _excuse(rule: Rule, excused: frozenset[str]) -> Rule:
    """Say of a rule that is met that what met it was excused, and sets off nothing."""
    if rule.verdict != YES or set(rule.grounds) - excused:
        return rule
    return replace(rule, told=f"{rule.told}; it was excused, and sets off nothing until it is new")
