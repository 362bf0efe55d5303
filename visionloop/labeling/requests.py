"""What people are asked in a round: which samples, in which order, why, and what they see of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.labeling.opening import answers_alone, provider_name
from visionloop.labeling.predicted import predictions
from visionloop.labeling.provider import Ask, Box
from visionloop.lake import parts
from visionloop.selection.explain import explain

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run

TRAINING, HOLDOUT, RELABEL, AUDIT = "training", "holdout", "relabel", "audit"
# So many more people than `trust.annotators` are asked about a sample that they disagree about.
MORE_ANSWERS = 2
# The same words as of a random pick: nothing tells an annotator what an answer is used for.
_AT_RANDOM = explain({}, arm="random")
_AGAIN = "Asked again, for a second opinion."
PLACES = ("x_min", "y_min", "x_max", "y_max")
_NOT_SHOWN = frozenset({"sample_id", "raw", "round_id", "run_id"})


@dataclass(frozen=True)
class Wanted:
    """A sample that people are to be asked about.

    Attributes:
        sample_id: The sample.
        purpose: ``training``, ``holdout``, ``relabel`` or ``audit``.
        reason: Why, in a sentence that people see.
        answers: How many people are asked.
    """

    sample_id: str
    purpose: str
    reason: str
    answers: int = 1


def named(names: Sequence[str], at_most: int = 5) -> str:
    """Return the first names as text, and how many more there are."""
    more = len(names) - at_most
    shown = ", ".join(names[:at_most])
    return f"{shown} and {more} more" if more > 0 else shown


def picks(run: Run, loop: LoopConfig) -> list[Wanted]:
    """Return what the round selected, in the order of the picks.

    Args:
        run: The run of the stage, which tells the round.
        loop: The loop's configuration.
    """
    rows = run.read(
        "selections",
        columns=["sample_id", "rank", "arm", "objectives"],
        where=f"round_id == '{run.round_id}'",
    ).to_pylist()
    rows.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0, row["sample_id"]))
    return [
        Wanted(
            row["sample_id"],
            TRAINING,
            explain(json.loads(row["objectives"] or "{}"), arm=row["arm"] or "selected"),
            answers_of(loop, row["sample_id"]),
        )
        for row in rows
    ]


def extra_asks(run: Run, loop: LoopConfig) -> list[Wanted]:
    """Return what else people are asked about in a round, beside its picks and the holdout.

    Args:
        run: The run of the stage, which tells the round.
        loop: The loop's configuration.
    """
    rows = run.read(
        "relabels", columns=["sample_id", "rank"], where=f"round_id == '{run.round_id}'"
    ).to_pylist()
    rows.sort(key=lambda row: (row["rank"] or 0, row["sample_id"]))
    return [Wanted(row["sample_id"], RELABEL, _AGAIN) for row in rows]


def holdout_asks(loop: LoopConfig, sample_ids: Collection[str]) -> list[Wanted]:
    """Return the requests for samples of the holdout, which nobody picked."""
    return [
        Wanted(sample, HOLDOUT, _AT_RANDOM, answers_of(loop, sample))
        for sample in sorted(sample_ids)
    ]


def answers_of(loop: LoopConfig, sample_id: str) -> int:
    """Return how many people are asked about a sample: the same whenever it is asked.

    Which samples several people answer is drawn by the sample's id, so that agreement is measured
    on a fair share, whatever was selected first.
    """
    trust = loop.labeling.trust
    if answers_alone(loop) or not trust.overlap:
        return 1
    drawn = hashlib.sha256(f"overlap {sample_id}".encode()).digest()
    share = int.from_bytes(drawn[:8], "big") / 2**64
    return trust.annotators if share < trust.overlap else 1


def most_answers(loop: LoopConfig) -> int:
    """Return how many people are asked at most about a sample that they disagree about."""
    return loop.labeling.trust.annotators + MORE_ANSWERS


def request_rows(
    wanted: Sequence[Wanted],
    held: Iterable[Mapping[str, Any]],
    loop: LoopConfig,
    round_id: str,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return a round's rows of `label_requests`, those that it had before first and as they were.

    Args:
        wanted: What is asked now.
        held: The rows that the round has.
        loop: The loop's configuration.
        round_id: The round.
        now: When it is asked, UTC.
    """
    place = {one.sample_id: rank for rank, one in enumerate(wanted)}
    rows = {row["sample_id"]: dict(row) for row in held}
    for sample, row in rows.items():
        if row["rank"] is None:  # asked before schema version 6
            row["rank"] = place.get(sample, len(place))
    after = max((row["rank"] + 1 for row in rows.values()), default=0)
    new = [one for one in wanted if one.sample_id not in rows]
    ordered = sorted(rows.values(), key=lambda row: (row["rank"], row["sample_id"]))
    return ordered + [
        {
            "sample_id": one.sample_id,
            "purpose": one.purpose,
            "provider": provider_name(loop),
            "external_id": "",
            "requested_at": now,
            "rank": after + position,
            "reason": one.reason,
            "answers": one.answers,
            "recalled": False,
            "round_id": round_id,
        }
        for position, one in enumerate(new)
    ]


def build_asks(
    loop: LoopConfig,
    lake: Lake,
    rows: Sequence[Mapping[str, Any]],
    places: Mapping[str, str],
    *,
    version: str = "",
) -> list[Ask]:
    """Return requests with all that people are shown.

    What the model takes a sample for is shown of picks that were chosen for what is known of them.
    Of the holdout, of random picks, of samples that are asked about again and of audits it is not:
    people agree with what they are shown, and those labels judge the model.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        rows: Rows of `label_requests`.
        places: Where each sample lies.
        version: Lake version to read at; empty for the newest.
    """
    ids = {row["sample_id"] for row in rows}
    sizes: dict[str, dict[str, Any]] = {}
    told: dict[str, dict[str, Any]] = {}
    said: dict[str, dict[str, Any]] = {}
    model = ""
    if not answers_alone(loop):
        sizes = _by_sample(lake, "samples", ids, version, ["sample_id", "width", "height"])
        told = _by_sample(lake, "metadata", ids, version)
        model, said = predictions(lake, ids - _blind(lake, rows, version), version)
    asks = []
    for row in sorted(rows, key=lambda row: (row["rank"] or 0, row["sample_id"])):
        sample = row["sample_id"]
        seen = said.get(sample) or {}
        size = sizes.get(sample) or {}
        asks.append(
            Ask(
                sample_id=sample,
                uri=places.get(sample, ""),
                width=size.get("width") or 0,
                height=size.get("height") or 0,
                purpose=row["purpose"],
                rank=row["rank"] or 0,
                reason=row["reason"] or "",
                answers=row["answers"] or 1,
                label=seen.get("label"),
                confidence=seen.get("confidence"),
                boxes=_boxes(seen.get("boxes")) if seen else None,
                model_id=model if seen else "",
                metadata={
                    name: value
                    for name, value in (told.get(sample) or {}).items()
                    if name not in _NOT_SHOWN and value is not None
                },
            )
        )
    return asks


def _blind(lake: Lake, rows: Sequence[Mapping[str, Any]], version: str) -> set[str]:
    """Return the samples of which people are not shown what the model takes them for."""
    blind = {row["sample_id"] for row in rows if row["purpose"] != TRAINING}
    rounds = {row["round_id"] for row in rows}
    picked = lake.read(
        "selections",
        columns=["sample_id", "round_id"],
        where="arm == 'random'",
        version=version or None,
    ).to_pylist()
    return blind | {row["sample_id"] for row in picked if row["round_id"] in rounds}


def _by_sample(
    lake: Lake, table: str, ids: Collection[str], version: str, columns: list[str] | None = None
) -> dict[str, dict[str, Any]]:
    rows = parts.rows_of(lake, table, ids, columns=columns, version=version).to_pylist()
    return {row["sample_id"]: row for row in rows}


def _boxes(found: Sequence[Mapping[str, Any]] | None) -> tuple[Box, ...] | None:
    # Where the model is no detector an earlier program stored an empty list.
    return tuple(box_of(one) for one in found) if found else None


def box_of(stored: Mapping[str, Any]) -> Box:
    """Return a box of a column of boxes; its confidence is the highest of its scores."""
    x_min, y_min, x_max, y_max = (float(stored[name]) for name in PLACES)
    scores = stored.get("scores") or ()
    sure = max(map(float, scores)) if scores else None
    return Box(x_min, y_min, x_max, y_max, stored["label"] or "", sure)
