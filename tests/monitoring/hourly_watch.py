"""A watch that looks every hour at what a test shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from visionloop.monitoring.acting_seen import Service, StandingFlags
from visionloop.monitoring.acting_state import StandingActs, standing_acts
from visionloop.monitoring.falling import Fall
from visionloop.monitoring.watch_config import WatchConfig
from visionloop.monitoring.watching import Decision, Sight, decide, plain

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DRIFTED = StandingFlags("confidence_drift", "cameras", "m2", 1)


class Watch:
    """A watch that looks every hour, and remembers its decisions as the lake does."""

    def __init__(self, **config: Any) -> None:
        self.config = WatchConfig.model_validate(config)
        self.rows: list[dict[str, Any]] = []
        self.round, self.hour = 0, 0

    def look(
        self,
        service: Service,
        falls: tuple[Fall, ...] = (),
        held: str = "",
        chosen: bool = False,
    ) -> Decision:
        self.hour += 1
        sight = Sight(
            NOW + timedelta(hours=self.hour),
            round_id=f"{self.round:04d}",
            falls=falls,
            held_by=held,
            chosen=chosen,
            service=replace(service, acts=self.acts),
        )
        found = decide(sight, self.config)
        common = {"decided_at": sight.now, "round_id": sight.round_id}
        watched = {"decision": "watch", "outcome": found.outcome, "reason": found.reason}
        self.rows.append(watched | common | {"subject": "", "inputs": found.inputs()})
        for act in found.acts:
            row = {"decision": act.decision, "subject": act.subject, "outcome": act.outcome}
            self.rows.append(
                row | common | {"reason": act.reason, "inputs": plain(dict(act.inputs))}
            )
        return found

    def did(self, service: Service, **more: Any) -> list[tuple[str, str]]:
        return [(act.decision, act.outcome) for act in self.look(service, **more).acts]

    def word(self, decision: str, outcome: str, subject: str = "", **inputs: Any) -> None:
        self.hour += 1
        row = {"decision": decision, "outcome": outcome, "subject": subject, "reason": "said"}
        at = {"decided_at": NOW + timedelta(hours=self.hour), "round_id": f"{self.round:04d}"}
        self.rows.append(row | at | {"inputs": json.dumps(inputs)})

    @property
    def acts(self) -> StandingActs:
        return standing_acts(reversed(self.rows))


def service(**seen: Any) -> Service:
    """Return what a watch saw while m2 was in service."""
    base = Service("cameras", "m2", "m1", "file:///m1", random_share=0.1, n_comparisons=4)
    return replace(base, **seen)


def verdict(found: Decision, name: str) -> str:
    """Return what a rule said."""
    (rule,) = [rule for rule in found.rules if rule.name == name]
    return rule.verdict
