"""What a round of the demo came to, read from the lake."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.lake import Lake


def round_summary(lake: Lake, number: int, events_logged: int, seconds: float) -> dict[str, Any]:
    """Return a round's entry of ``summary.json``.

    Args:
        lake: The demo's lake.
        number: The round, from 0.
        events_logged: Images that the endpoint answered.
        seconds: How long the round took.
    """
    round_id = f"{number:04d}"
    where = f"round_id == '{round_id}'"
    models = {row["arm"]: row for row in lake.read("experiments", where=where).to_pylist()}
    loop, random = models.get("loop"), models.get("random")
    flags = Counter(lake.read("flags", columns=["kind"], where=where)["kind"].to_pylist())
    decided = lake.read("decisions", where=f"{where} and decision == 'publish'").to_pylist()
    # What is harvested after a round belongs to the next one: it feeds that selection.
    harvested = lake.read(
        "confidences", columns=["event_id"], where=f"round_id == '{number + 1:04d}'"
    )
    return {
        "round": number,
        "labels": int(loop["n_labels"]) if loop else 0,
        "accuracy": _accuracy(loop),
        "random_accuracy": _accuracy(random),
        "model_id": loop["model_id"] if loop else "",
        "published": any(row["outcome"] == "published" for row in decided),
        "events_logged": events_logged,
        "events_harvested": harvested.num_rows,
        "flags": dict(sorted(flags.items())),
        "seconds": round(seconds, 1),
    }


def _accuracy(experiment: dict[str, Any] | None) -> float | None:
    if experiment is None or not experiment["metrics"]:
        return None
    value = json.loads(experiment["metrics"]).get("accuracy")
    return round(float(value), 4) if value is not None else None
