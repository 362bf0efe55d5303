"""What people are asked in a round: which samples, in which order, why, and what they see of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.labeling.auto.share import drawn
from visionloop.labeling.opening import answers_alone, provider_name
from visionloop.labeling.predicted import predictions
from visionloop.labeling.provider import Ask, Box
from visionloop.lake import parts
from visionloop.selection.explain import explain
from visionloop.validation import nearest

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run

TRAINING, HOLDOUT, RELABEL, AUDIT = "training", "holdout", "relabel", "audit"
# So many more people than `trust.annotators` are asked about a sample that they disagree about.
MORE_ANSWERS = 2
# The same words as of a random pick: nothing tells an annotator what an answer is used for.
AS_AT_RANDOM = explain({}, arm="random")
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
        Wanted(sample, HOLDOUT, AS_AT_RANDOM, answers_of(loop, sample))
        for sample in sorted(sample_ids)
    ]


def answers_of(loop: LoopConfig, sample_id: str) -> int:
    """Return how many people are asked about a sample: the same whenever it is asked.

    Which samples several people answer is drawn by the sample's id, so that agreement is measured
    on a fair share, whatever was selected first.
    """
    trust = loop.labeling.trust
    return trust.annotators if drawn("overlap", sample_id) < trust.overlap else 1


def interleaved(*kinds: Sequence[Wanted]) -> list[Wanted]:
    """Return requests of several kinds as one list, each kind in its own order and evenly spread.

    So a deadline cuts off as much of each kind, and the order does not tell which is which.
    """
    placed = [
        ((place + drawn("order", one.sample_id)) / len(kind), one.sample_id, one)
        for kind in kinds
        for place, one in enumerate(kind)
    ]
    return [one for _, _, one in sorted(placed, key=lambda at: at[:2])]


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

    What the model takes a sample for is not shown where `blind_samples` says so. Of its metadata
    people see the columns that ``labeling.show`` names.

    Args:
        loop: The loop's configuration.
        lake: Its lake.
        rows: Rows of `label_requests`.
        places: Where each sample lies.
        version: Lake version to read at; empty for the newest.

    Raises:
        InputError: ``labeling.show`` names a column that the lake's metadata do not have.
    """
    ids = {row["sample_id"] for row in rows}
    sizes: dict[str, dict[str, Any]] = {}
    told: dict[str, dict[str, Any]] = {}
    said: dict[str, dict[str, Any]] = {}
    model = ""
    if not answers_alone(loop):
        sizes = _by_sample(lake, "samples", ids, version, ["sample_id", "width", "height"])
        told = _shown_metadata(loop, lake, ids, version)
        picked = lake.read("selections", where="arm == 'random'", version=version or None)
        blind = blind_samples(rows, picked.to_pylist())
        model, said = predictions(lake, ids - blind, version)
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
                    if name in loop.labeling.show and value is not None
                },
            )
        )
    return asks


def blind_samples(
    rows: Iterable[Mapping[str, Any]], at_random: Iterable[Mapping[str, Any]]
) -> set[str]:
    """Return the samples of which people are not shown what the model takes them for.

    People agree with what they are shown. Of the holdout, of random picks, of samples that are
    asked about again and of audits the labels judge the model or other labels, and of what several
    people answer their agreement judges them.

    Args:
        rows: Rows of `label_requests`.
        at_random: Rows of `selections` that were drawn at random.
    """
    asked = list(rows)
    blind = {
        row["sample_id"] for row in asked if row["purpose"] != TRAINING or (row["answers"] or 1) > 1
    }
    picked = {(row["round_id"], row["sample_id"]) for row in at_random}
    return blind | {
        row["sample_id"] for row in asked if (row["round_id"], row["sample_id"]) in picked
    }


def _shown_metadata(
    loop: LoopConfig, lake: Lake, ids: Collection[str], version: str
) -> dict[str, dict[str, Any]]:
    """Return the metadata that people see of samples: only what the configuration names."""
    wanted = loop.labeling.show
    if not wanted:
        return {}
    there = lake.read("metadata", where="sample_id == ''", version=version or None).column_names
    known = [name for name in there if name not in _NOT_SHOWN]
    strange = [name for name in wanted if name not in known]
    if strange:
        raise InputError(
            f"the lake's metadata have no column `{strange[0]}`{nearest(strange[0], known)}",
            where="labeling.show",
            remedy=f"Name some of: {named(sorted(known), 20)}" if known else "There are none",
        )
    return _by_sample(lake, "metadata", ids, version, ["sample_id", *wanted])


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
