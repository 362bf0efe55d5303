"""The rules of `watch`: from what was seen to start, resume or wait, and to its other acts.

A pure function of what was seen and of the configuration. Every rule is judged each time, also
where another one has decided already, so that the record shows how near each of them was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from visionloop.monitoring.acting import Act, judge
from visionloop.monitoring.acting_seen import Service
from visionloop.monitoring.falling import Fall
from visionloop.monitoring.rule import NO, OFF, RESUME, START, UNKNOWN, WAIT, YES, Rule
from visionloop.monitoring.watch_config import WatchConfig
from visionloop.words import counted, round_name

# Means of float32 carry no more than that.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Drifted:
    """A comparison of deployed confidences that counts as drift."""

    endpoint: str
    model_id: str
    kind: str
    reference: str
    score: float
    threshold: float


@dataclass(frozen=True)
class Sight:
    """What a watch saw.

    Attributes:
        now: When it looked, UTC.
        round_id: The open round, or the one that comes next.
        state: ``running`` or ``waiting`` of the open round; empty where none is open.
        held_by: Which live run holds the open round, in words; empty where none does.
        chosen: Whether the open round has chosen its samples.
        n_requested: Labels that the waiting round asked for.
        n_missing: Those of them that nobody has given yet.
        answers_read: Whether the answers were read; else the tool has counted them, and with them
            those that cannot be used.
        answers_at: Where the answers are read from.
        enough: Why the round goes on without those that are missing; empty where it does not.
        n_new_files: Files at the sources that the lake does not know.
        n_new_samples: Samples of the pool that came in since the last round chose.
        n_selectable: Samples of the pool that nobody was asked about yet.
        drifted: Drift of what the model in service said since the last round.
        falls: Its mean confidence since then, beside each reference.
        last_ended: When the last round ended; None before the first.
        n_asked: Labels asked for within `watch.max_labels_days`.
        n_samples: Labels that the next round would ask for.
        version: Version of the lake that was read.
        service: What was seen of labels, answers and the model in service.
    """

    now: datetime
    round_id: str = "0000"
    state: str = ""
    held_by: str = ""
    chosen: bool = False
    n_requested: int = 0
    n_missing: int = 0
    answers_read: bool = True
    answers_at: str = ""
    enough: str = ""
    n_new_files: int = 0
    n_new_samples: int = 0
    n_selectable: int = 0
    drifted: tuple[Drifted, ...] = ()
    falls: tuple[Fall, ...] = ()
    last_ended: datetime | None = None
    n_asked: int = 0
    n_samples: int = 0
    version: str = ""
    service: Service = field(default_factory=Service)


@dataclass(frozen=True)
class Decision:
    """What a watch decided.

    Attributes:
        outcome: ``start``, ``resume`` or ``wait``.
        round_id: The round that it is about.
        reason: Why, in one sentence.
        rules: Every rule.
        sight: What they were applied to.
        acts: What is done besides, in order.
    """

    outcome: str
    round_id: str
    reason: str
    rules: tuple[Rule, ...]
    sight: Sight = field(repr=False)
    acts: tuple[Act, ...] = ()

    def inputs(self) -> str:
        """Return what was seen and what each rule said of it, as JSON for the record."""
        content: dict[str, Any] = {
            "seen": asdict(self.sight),
            "rules": [asdict(rule) for rule in self.rules],
            "acts": [act.reason for act in self.acts],
            # What an excuse holds for, see `visionloop.monitoring.acting_state`.
            "grounds": {
                "there": sorted({ground for rule in self.rules for ground in rule.grounds}),
                "untold": [r.name for r in self.rules if r.verdict in (OFF, UNKNOWN)],
            },
        }
        return plain(content)


def plain(content: Mapping[str, Any]) -> str:
    """Return what a decision was made by as JSON, for its row."""

    def value(held: Any) -> Any:
        return sorted(held) if isinstance(held, (set, frozenset)) else held.isoformat()

    return json.dumps(content, default=value, ensure_ascii=False, sort_keys=True)


def decide(sight: Sight, config: WatchConfig) -> Decision:
    """Decide whether a round starts, is resumed, or is waited for, and what is done besides.

    An open round comes first: it is resumed or waited for, whatever else was seen. Where none is
    open, one met rule starts a round unless a limit holds it back.

    Args:
        sight: What was seen.
        config: The section ``watch`` of the configuration.
    """
    rules = (
        _held(sight),
        _interrupted(sight),
        _labels_finished(sight, config),
        _new_samples(sight, config),
        _drift(sight, config),
        _falling(sight, config),
        _time(sight, config),
        _pause(sight, config),
        _budget(sight, config),
        _nothing_to_select(sight),
    )
    outcome, reason = _open_round(sight, rules) if sight.state else _next_round(sight, rules)
    judged, acts = judge(
        sight.service,
        sight.falls,
        config,
        now=sight.now,
        round_id=sight.round_id,
        held_by=sight.held_by,
        chosen=sight.chosen,
    )
    return Decision(outcome, sight.round_id, reason, (*rules, *judged), sight, acts)


def _open_round(sight: Sight, rules: tuple[Rule, ...]) -> tuple[str, str]:
    by_name = {rule.name: rule for rule in rules}
    name = round_name(sight.round_id).capitalize()
    if by_name["live_run"].verdict == YES:
        return WAIT, f"{name} is open: {by_name['live_run'].told}."
    if by_name["interrupted"].verdict == YES:
        return RESUME, f"{name} goes on: {by_name['interrupted'].told}."
    finished = by_name["labels_finished"]
    if finished.verdict == YES:
        return RESUME, f"{name} goes on: {finished.told}."
    return WAIT, f"{name} waits for labels: {finished.told}."


def _next_round(sight: Sight, rules: tuple[Rule, ...]) -> tuple[str, str]:
    name = round_name(sight.round_id)
    met = [rule.told for rule in rules if rule.effect == START and rule.verdict == YES]
    limits = [rule.told for rule in rules if rule.effect == WAIT and rule.verdict == YES]
    if met and not limits:
        return START, f"{name.capitalize()} starts: {'; '.join(met)}."
    if met:
        return WAIT, (
            f"{name.capitalize()} does not start: {'; '.join(limits)}. "
            f"What called for it: {'; '.join(met)}."
        )
    asked = [rule.told for rule in rules if rule.effect == START and rule.verdict != OFF]
    said = "; ".join(asked) or "every rule that starts one is off"
    return WAIT, f"Nothing calls for {name}: {said}."


def _held(sight: Sight) -> Rule:
    if not sight.held_by:
        return Rule("live_run", WAIT, NO, None, None, "no other run is at work on it")
    return Rule("live_run", WAIT, YES, None, None, f"it is being run by {sight.held_by}")


def _interrupted(sight: Sight) -> Rule:
    if sight.state == "running" and not sight.held_by:
        told = "it was interrupted, and the run that held it is gone"
        return Rule("interrupted", RESUME, YES, None, None, told)
    return Rule("interrupted", RESUME, NO, None, None, "no round was interrupted")


def _labels_finished(sight: Sight, config: WatchConfig) -> Rule:
    if sight.state != "waiting":
        return Rule("labels_finished", RESUME, NO, None, None, "no round waits for labels")
    there = sight.n_requested - sight.n_missing
    told = f"{there:,} of {counted(sight.n_requested, 'request is', 'requests are')} answered"
    told += "" if sight.answers_read else " at the tool, usable or not"
    if sight.n_missing:
        # Why it is enough tells the same numbers.
        told = sight.enough or told
        told += f"; {sight.n_missing:,} missing in {sight.answers_at or 'no place'}"
    verdict = NO if sight.n_missing and not sight.enough else YES
    if not config.on_labels_finished:
        verdict, told = OFF, f"{told}, and `watch.on_labels_finished` is off"
    return Rule("labels_finished", RESUME, verdict, there, sight.n_requested, told)


def _new_samples(sight: Sight, config: WatchConfig) -> Rule:
    n, least = sight.n_new_files + sight.n_new_samples, config.min_new_samples
    told = (
        f"{counted(n, 'new image')}, {least:,} start a round "
        f"({counted(sight.n_new_files, 'new file')} at the sources, "
        f"{counted(sight.n_new_samples, 'new sample')} in the lake)"
    )
    verdict = OFF if not least else YES if n >= least else NO
    return Rule("new_samples", START, verdict, n, least, told)


def _drift(sight: Sight, config: WatchConfig) -> Rule:
    found = [
        f"{d.kind.replace('_', ' ')} of {d.endpoint or 'the endpoint'} against {d.reference} "
        f"({d.score:.2f}, threshold {d.threshold:.2f})"
        for d in sight.drifted
    ]
    n = len(found)
    if not config.on_drift:
        told = ", ".join(found) or "drift starts no round"
        return Rule("drift", START, OFF, n, 1, told)
    if not found and not sight.service.n_comparisons:
        told = "no answers since the last round that could be compared"
        return Rule("drift", START, UNKNOWN, None, 1, told)
    told = ", ".join(found) or "no drift since the last round"
    return Rule("drift", START, YES if found else NO, n, 1, told)


def _falling(sight: Sight, config: WatchConfig) -> Rule:
    least = config.min_confidence_drop

    def rule(verdict: str, value: float | None, told: str) -> Rule:
        return Rule("falling_confidence", START, verdict if least else OFF, value, least, told)

    if not sight.falls:
        return rule(UNKNOWN, None, "no confidences since the last round that could be compared")
    judged = [fall for fall in sight.falls if fall.state != "too few to say"]
    if not judged:
        fall = max(sight.falls, key=lambda fall: min(fall.n_before, fall.n_now))
        told = f"too few confidences to say whether they fall ({fall.n_now:,}, {fall.n_before:,})"
        return rule(UNKNOWN, None, told)
    met = [f for f in judged if f.state == "real" and f.drop >= least - _ROUNDING]
    worst = max(met or judged, key=lambda fall: fall.drop)
    verb = "fell" if worst.drop > 0 else "did not fall"
    told = (
        f"mean confidence of {worst.endpoint or 'the endpoint'} {verb} from {worst.before:.3f} "
        f"({worst.reference}) to {worst.now:.3f}"
    )
    if not met and worst.drop >= least - _ROUNDING:
        told += ", which may be chance"
    return rule(YES if met else NO, worst.drop, told)


def _time(sight: Sight, config: WatchConfig) -> Rule:
    days, most = _since(sight, 86400.0), config.max_days
    told = _since_told(sight, days, "days")
    if not most:
        return Rule("time", START, OFF, days, most, told)
    if days is None:
        return Rule("time", START, UNKNOWN, None, most, told)
    told += f", and `watch.max_days` is {most:g}"
    return Rule("time", START, YES if days >= most else NO, days, most, told)


def _pause(sight: Sight, config: WatchConfig) -> Rule:
    hours, least = _since(sight, 3600.0), config.min_hours
    told = _since_told(sight, hours, "hours")
    if not least:
        return Rule("pause", WAIT, OFF, hours, least, told)
    if hours is None:
        return Rule("pause", WAIT, UNKNOWN, None, least, told)
    told = f"{told}, and `watch.min_hours` is {least:g}"
    return Rule("pause", WAIT, YES if hours < least else NO, hours, least, told)


def _budget(sight: Sight, config: WatchConfig) -> Rule:
    n, most = sight.n_asked + sight.n_samples, config.max_labels
    told = (
        f"{sight.n_asked:,} labels were asked for in the last {config.max_labels_days:g} days, and "
        f"{sight.n_samples:,} more make {n:,}"
    )
    if not most:
        return Rule("label_budget", WAIT, OFF, n, most, told)
    told += f" of at most {most:,}"
    return Rule("label_budget", WAIT, YES if n > most else NO, n, most, told)


def _nothing_to_select(sight: Sight) -> Rule:
    n = sight.n_new_files + sight.n_selectable
    told = f"{n:,} images are left that nobody was asked about" if n else "no image is left to ask"
    return Rule("nothing_to_select", WAIT, NO if n else YES, n, 1, told)


def _since(sight: Sight, unit: float) -> float | None:
    """Return the time since the last round; None before the first, and after a clock's jump."""
    if sight.last_ended is None:
        return None
    seconds = (sight.now - sight.last_ended).total_seconds()
    return seconds / unit if seconds >= 0 else None


def _since_told(sight: Sight, since: float | None, unit: str) -> str:
    if sight.last_ended is None:
        return "there was no round yet"
    if since is None:
        return (
            f"by this clock the last round ended in the future ({sight.last_ended:%Y-%m-%d %H:%M})"
        )
    return f"the last round ended {since:.1f} {unit} ago"
