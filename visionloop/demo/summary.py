"""What a round of the demo came to, read from the lake."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.runner import RunResult


def round_summary(
    lake: Lake, number: int, turn: RunResult, harvest: RunResult, events_logged: int, seconds: float
) -> dict[str, Any]:
    """Return a round's entry of ``summary.json``.

    Args:
        lake: The demo's lake.
        number: The round, from 0.
        turn: The run of the pipeline `round`.
        harvest: The run of the pipeline `harvest` after the round's traffic.
        events_logged: Images that the endpoint answered.
        seconds: How long the round took.
    """
    round_id = f"{number:04d}"
    where = f"round_id == '{round_id}'"
    models = {row["arm"]: row for row in lake.read("experiments", where=where).to_pylist()}
    loop, random = models.get("loop"), models.get("random")
    flags = Counter(lake.read("flags", columns=["kind"], where=where)["kind"].to_pylist())
    published = turn.task("publish")
    harvested = harvest.task("harvest")
    return {
        "round": number,
        "labels": int(loop["n_labels"]) if loop else 0,
        "accuracy": _accuracy(loop),
        "random_accuracy": _accuracy(random),
        "model_id": published.outputs.get("in_service", "") if published else "",
        "published": bool(published and published.outputs.get("published")),
        "events_logged": events_logged,
        "events_harvested": harvested.outputs.get("n_confidences", 0) if harvested else 0,
        "flags": dict(sorted(flags.items())),
        "seconds": round(seconds, 1),
    }


def _accuracy(experiment: dict[str, Any] | None) -> float | None:
    if experiment is None or not experiment["metrics"]:
        return None
    value = json.loads(experiment["metrics"]).get("accuracy")
    return round(float(value), 4) if value is not None else None
