"""What stands now: flags on what is no picture, acts of the loop, stages that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.acting_state import standing_acts
from visionloop.monitoring.failed_stages import KIND, failures
from visionloop.monitoring.kinds import KINDS, SEVERITIES
from visionloop.monitoring.report.data_drift import DriftSeries
from visionloop.monitoring.report.data_health import FailedStage, StandingAct, StandingFlag
from visionloop.monitoring.report.galleries import OF_PICTURES, worst
from visionloop.monitoring.report.lineage import with_names
from visionloop.monitoring.report.reading import Reader, content
from visionloop.monitoring.telling import evidence_lines, evidence_of, file_name, measured_apart
from visionloop.monitoring.unjudged import (
    LABELS,
    OF_DRIFT,
    Unjudged,
    of_comparisons,
    of_labels,
    read_unjudged,
)
from visionloop.words import round_name

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Flags of one kind that the page lists; the count tells of all.
LISTED = 50


def severity_of(kind: str) -> str:
    """Return a kind's severity; a kind that this visionloop does not know is worth a look."""
    about = KINDS.get(kind)
    return about.severity if about else "warning"


def standing_flags(reader: Reader, flags: pa.Table) -> tuple[StandingFlag, ...]:
    """Return the flags that count now on what is no picture, the severest kinds first.

    Args:
        reader: The lake.
        flags: Flags that count now.
    """
    others = flags.filter(
        pc.invert(pc.is_in(flags["subject_type"], value_set=pa.array(OF_PICTURES)))
    )
    found: list[StandingFlag] = []
    for kind in sorted(pc.unique(others["kind"]).to_pylist()):
        rows = worst(others.filter(pc.equal(others["kind"], kind))).slice(0, LISTED)
        found += [_standing(reader, row) for row in rows.to_pylist()]
    return tuple(sorted(found, key=lambda flag: -SEVERITIES.index(_severity(flag))))


def _severity(flag: StandingFlag) -> Any:
    return flag.severity


def _standing(reader: Reader, row: Mapping[str, Any]) -> StandingFlag:
    evidence = evidence_of(row)
    about = KINDS.get(row["kind"])
    lines = [
        with_names(reader, line)
        for line in evidence_lines(row, reader.upcoming)
        if ", threshold " not in line and not line.startswith("compared with ")
    ]
    images = evidence.get("images")
    return StandingFlag(
        row["kind"],
        about.title if about else row["kind"].replace("_", " ").capitalize(),
        severity_of(row["kind"]),
        _subject(reader, row),
        row["subject_type"] or "",
        row["score"],
        row["threshold"],
        str(evidence.get("unit") or ""),
        with_names(reader, str(evidence.get("reference") or "")),
        tuple(lines),
        row["flagged_at"],
        about.remedy if about else "",
        tuple(str(one) for one in images) if isinstance(images, list) else (),
    )


def _subject(reader: Reader, row: Mapping[str, Any]) -> str:
    subject = str(row["subject"] or "")
    if row["subject_type"] == "model":
        return reader.model_names.get(subject, subject)
    if row["subject_type"] == "round":
        return round_name(subject)
    if "://" in subject:
        return file_name(subject) or subject
    return subject


def told_flag(flag: StandingFlag) -> str:
    """Return a standing flag as a clause: its subject, and by how much."""
    said = flag.subject
    if flag.score is not None and flag.threshold is not None:
        score, limit = measured_apart(flag.score, flag.threshold, flag.unit)
        said += f" ({score}, threshold {limit})"
    return said


def acts(reader: Reader) -> tuple[StandingAct, ...]:
    """Return what the loop decided that holds now."""
    held = standing_acts(reader.decisions)
    found = []
    if held.block is not None:
        why = with_names(reader, held.block.because)
        found.append(StandingAct("block", f"Nothing is published: {why}.", held.block.since))
    if held.share is not None:
        why = with_names(reader, held.share.because)
        share = held.share.value
        # Shares are a number of picks of each batch, told as a percentage.
        said = f"The random share is raised to {share:.0%}: {why}." if share is not None else why
        found.append(StandingAct("random_share", said, held.share.since, share))
    return tuple(found)


def failed_stages(lake: Lake, until: datetime | None) -> tuple[FailedStage, ...]:
    """Return the stages that failed and have not succeeded since, newest first.

    Args:
        lake: The lake.
        until: What failed later is not told of: for the report of an older version.
    """
    return tuple(
        FailedStage(one.stage, one.round_id, one.when, one.what, one.where, one.remedy)
        for one in failures(lake, now=until)
    )


def still_failed(flags: pa.Table, failed: Sequence[FailedStage]) -> pa.Table:
    """Return flags without those of stages that have succeeded since a monitor wrote them.

    Args:
        flags: Those that count now.
        failed: From `failed_stages`, which needs no monitor.
    """
    stages = pa.array(sorted({one.stage for one in failed}), pa.string())
    mended = pc.and_(
        pc.equal(flags["kind"], KIND), pc.invert(pc.is_in(flags["subject"], value_set=stages))
    )
    return flags.filter(pc.invert(mended))


def not_judged(reader: Reader, series: Sequence[DriftSeries]) -> tuple[Unjudged, ...]:
    """Return what there was too little of to be judged, at the newest look at each thing.

    Labels are judged before a publication too, and drift by each monitor that had something new to
    compare; the rest is as the newest monitor told it.

    Args:
        reader: The lake.
        series: Every measure of drift.
    """
    rows = next(_told(reader, "not_judged"), ())
    judged = (one for one in _told(reader, "labels") if isinstance(one, dict))
    labels: dict[str, Any] = next(judged, {})
    last = [
        {
            "kind": one.kind,
            "subject": one.subject,
            "state": one.state,
            "reason": one.points[-1].reason,
        }
        for one in series
        if one.points
    ]
    elsewhere = OF_DRIFT | {LABELS}
    return (
        *(one for one in read_unjudged(rows) if elsewhere.isdisjoint(one.kinds)),
        *of_labels(labels),
        *of_comparisons(last),
    )


def left_to_select(reader: Reader) -> int | None:
    """Return how many pictures can still be selected, as the newest monitor counted them.

    Args:
        reader: The lake.

    Returns:
        The number of the monitor's page and metrics; None where no monitor has run.
    """
    # `select` tells of its pool, too, as a plain number.
    counted_then = (one for one in _told(reader, "pool") if isinstance(one, dict))
    left = next(counted_then, {}).get("n_left")
    return None if left is None else int(left)


def _told(reader: Reader, name: str) -> Iterator[Any]:
    """Yield what the outputs of runs hold under a name, the newest first, read when asked for."""
    for run in reversed(reader.runs):
        if f'"{name}"' in (run["outputs"] or ""):
            told = content(run["outputs"])
            if name in told:
                yield told[name]


def flag_counts(flags: pa.Table) -> dict[str, int]:
    """Return how many flags count now, by kind."""
    counts = pc.value_counts(flags["kind"].combine_chunks()).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda r: str(r["values"]))}


def new_flags(flags: pa.Table, round_id: str) -> dict[str, int]:
    """Return how many of them the newest round brought, by kind.

    Args:
        flags: Flags that count now.
        round_id: The newest round; what a harvest found since bears the number of the next.
    """
    since = pc.greater_equal(pc.fill_null(flags["round_id"], ""), round_id)
    return flag_counts(flags.filter(since))
