"""What deployed models said, harvest by harvest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.deployed import (
    WINDOW_COLUMNS,
    deployed_windows,
    holdout_references,
)
from visionloop.monitoring.intervals import Rate
from visionloop.monitoring.judged import UNNAMED_ENDPOINT
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.report.data import HarvestCount, Window
from visionloop.monitoring.report.data_drift import DRIFT
from visionloop.monitoring.report.drift import comparisons
from visionloop.monitoring.report.events import event_states
from visionloop.monitoring.report.reading import Reader
from visionloop.monitoring.telling import measured_apart
from visionloop.words import round_name

BINS = 20


def windows(reader: Reader) -> tuple[Window, ...]:
    """Return what each model said at each endpoint, by the round whose harvest brought it."""
    deployed = deployed_windows(reader.read("confidences", *WINDOW_COLUMNS))
    if not deployed:
        return ()
    served = {window.model_id for window in deployed}
    held = reader.holdout_predictions
    held = held.filter(pc.is_in(held["model_id"], value_set=pa.array(sorted(served), pa.string())))
    references = holdout_references(held, set(reader.holdout.to_pylist()))
    estimates = _estimates(reader)
    drifted = _drifted(reader)
    made = []
    for window in deployed:
        reference = references.get(window.model_id)
        key = (window.endpoint, window.model_id)
        mine = estimates.get((*key, window.round_id))
        made.append(
            Window(
                window.round_id,
                window.endpoint,
                window.model_id,
                len(window.confidences),
                _rate(mine),
                _shares(window.confidences),
                _shares(reference[0]) if reference else (),
                drifted.get((window.endpoint or UNNAMED_ENDPOINT, *key[1:], window.round_id), ()),
                str(mine["reason"] or "") if mine else "",
                _rate(estimates.get((*key, ""))),
            )
        )
    return tuple(made)


def _estimates(reader: Reader) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the newest estimate of each window; of all harvests together for the round ""."""
    rows = [row for row in reader.read("estimates").to_pylist() if row["label"] is None]
    rows.sort(key=lambda row: (row["round_id"], str(row["estimated_at"])))
    return {(row["endpoint"], row["model_id"], row["harvested_in_round"]): row for row in rows}


def _rate(row: dict[str, Any] | None) -> Rate | None:
    if row is None or row["value"] is None:
        return None
    return Rate(row["value"], row["low"], row["high"], row["n"])


def _drifted(reader: Reader) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Return in words what drifted, by endpoint, model and round of harvest."""
    found: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for one in comparisons(reader):
        if one["subject_type"] != "endpoint" or one["state"] != DRIFT:
            continue
        about = KINDS.get(one["kind"])
        title = about.title if about else str(one["kind"]).replace("_", " ").capitalize()
        against = str(one["against"])
        # Lakes of an earlier visionloop have ids here: `round 0003`.
        of_round = against.startswith("round ")
        against = round_name(against.removeprefix("round ")) if of_round else f"the {against}"
        measured = measured_apart(one["score"], one["threshold"], str(one.get("unit") or ""))
        said = f"{title}, against {against}: {', threshold '.join(measured)}"
        key = (str(one["subject"]), str(one["model_id"] or ""), str(one["round_id"]))
        found[key] = (*found.get(key, ()), said)
    return found


def _shares(values: Any) -> tuple[float, ...]:
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    return tuple(float(share) for share in counts / max(1, counts.sum()))


def harvest_counts(reader: Reader) -> tuple[HarvestCount, ...]:
    """Return how many logged events ended in each state, and why, the most frequent first."""
    counted = event_states(reader)
    rows = [HarvestCount(state, reason, n) for (state, reason), n in counted.items()]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.state, row.reason)))
