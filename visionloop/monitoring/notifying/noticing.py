"""Finds what a lake holds that nobody was told of, and tells it.

What is new is what the newest version holds and the version before it, up to which all was told,
does not: so a process that was killed between its commit and its notification loses none, whichever
stage wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop.errors import VisionloopError
from visionloop.lake.storage import name_of
from visionloop.monitoring.notifying import delivery, outbox
from visionloop.monitoring.notifying.events import (
    Event,
    decision_event,
    failed_event,
    flags_event,
    worst,
)
from visionloop.monitoring.report_place import report_uri

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.monitoring.notify_config import NotifyConfig, Receiver

# What tells one row from another: a flag that stands keeps its round.
_FLAG = ("kind", "subject", "round_id")
_DECISION = ("decision", "subject", "outcome", "decided_at")
# Decisions that say that nothing is done.
_QUIET = {("watch", "wait")}


def tell_new(lake: Lake, config: NotifyConfig) -> delivery.Sent:
    """Tell of the flags and decisions that the lake holds since it was told of last.

    At the first time, those of the newest round are new.

    Args:
        lake: The lake.
        config: Who is told.

    Raises:
        VisionloopError: The lake or the outbox cannot be read or written.
    """
    if not lake.exists():
        return delivery.Sent()
    head, before = lake.version(), outbox.told(lake)
    if head != before.version:
        kinds = _wanted_kinds(config)
        flags = _new(lake, "flags", head, before, _FLAG, "flagged_at", kinds)
        decisions = _new(lake, "decisions", head, before, _DECISION, "decided_at")
        for receiver in config.to:
            for event in _events(lake, receiver, flags, decisions):
                outbox.put(lake, receiver, event)
        times = [row["flagged_at"] for row in flags] + [row["decided_at"] for row in decisions]
        until = max([one for one in (*times, before.until) if one is not None], default=None)
        outbox.set_told(lake, outbox.Told(head, until))
    return delivery.flush(lake, config)


def tell_failure(
    lake: Lake,
    config: NotifyConfig,
    stage: str,
    error: Mapping[str, str],
    *,
    round_id: str,
    run_id: str,
    upcoming: str = "",
) -> delivery.Sent:
    """Tell of a stage that failed.

    Args:
        lake: The lake.
        config: Who is told.
        stage: Name of the stage.
        error: ``what``, ``where`` and ``remedy``.
        round_id: The round, empty where that is not known.
        run_id: The run, empty where that is not known.
        upcoming: Id of the round that was not opened yet.

    Raises:
        VisionloopError: The outbox cannot be read or written.
    """
    event = failed_event(
        stage,
        error,
        loop=lake.loop,
        place=lake.place,
        round_id=round_id,
        run_id=run_id,
        upcoming=upcoming,
    )
    for receiver in config.to:
        if outbox.wanted(event, receiver):
            outbox.put(lake, receiver, event)
    return delivery.flush(lake, config)


def _new(
    lake: Lake,
    table: str,
    head: str,
    before: outbox.Told,
    key: tuple[str, ...],
    time: str,
    wanted: Callable[[str], bool] | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of a table that nobody was told of.

    Args:
        lake: The lake.
        table: Name of the table.
        head: The version up to which all is told now; what another stage commits meanwhile is not
            told twice.
        before: Up to what all was told.
        key: Columns that tell one row from another.
        time: Column with the time of a row, for where the version before is gone.
        wanted: Whether anybody is told of flags of a kind; None for all rows.
    """
    import pyarrow.compute as pc

    old: pa.Table | None = None
    if before.version:
        try:
            if lake.snapshot(table, version=before.version) == lake.snapshot(table, version=head):
                return []
            old = lake.read(table, columns=list(key), version=before.version)
        except VisionloopError:
            pass  # a vacuum removed that version
    held = lake.read(table, version=head)
    if wanted is not None:
        # A million pictures may have as many flags that are only good to know.
        kinds = [kind for kind in held["kind"].unique().to_pylist() if wanted(kind)]
        held = held.filter(pc.is_in(held["kind"], value_set=pa.array(kinds, pa.string())))
    if old is None:
        if before.until is not None:
            held = held.filter(pc.greater(held[time], pa.scalar(before.until, held[time].type)))
        else:
            rounds = lake.rounds.all()
            newest = rounds[-1].round_id if rounds else lake.rounds.current_or_next()
            held = held.filter(pc.equal(held["round_id"], newest))
    else:
        # A join finds no null equal to another: what has no subject would be new for ever.
        known, now = _filled(old), _filled(held.select(list(key)))
        numbered = now.append_column("row", pa.array(range(held.num_rows)))
        held = held.take(numbered.join(known, keys=list(key), join_type="left anti")["row"])
    new: list[dict[str, Any]] = held.to_pylist()
    return new


def _filled(rows: pa.Table) -> pa.Table:
    """Return rows in which the texts that are null are empty."""
    import pyarrow.compute as pc

    for i, column in enumerate(rows.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            rows = rows.set_column(i, column.name, pc.fill_null(rows.column(i), ""))
    return rows


def _wanted_kinds(config: NotifyConfig) -> Callable[[str], bool]:
    told = [one for one in config.to if "flags" in one.events]
    return lambda kind: any(outbox.wants_flag(kind, one) for one in told)


def _events(
    lake: Lake,
    receiver: Receiver,
    flags: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]],
) -> list[Event]:
    report = report_uri(lake)
    report = report if lake.storage.exists(report) else ""
    upcoming, told = lake.rounds.upcoming(), []
    mine = [row for row in flags if outbox.wants_flag(row["kind"], receiver)]
    if mine and "flags" in receiver.events:
        names = _names(lake, mine)
        event = flags_event(
            mine,
            loop=lake.loop,
            place=lake.place,
            names=names,
            report=report,
            upcoming=upcoming,
        )
        told.append(event)
    for row in sorted(decisions, key=lambda row: row["decided_at"]):
        if (row["decision"], row["outcome"]) not in _QUIET:
            event = decision_event(
                row, loop=lake.loop, place=lake.place, report=report, upcoming=upcoming
            )
            told.append(event)
    return [event for event in told if outbox.wanted(event, receiver)]


def _names(lake: Lake, flags: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the file name of each sample and file that is an example."""
    from pyiceberg.expressions import In

    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in flags:
        by_kind.setdefault(row["kind"], []).append(row)
    shown = [row for rows in by_kind.values() for row in worst(rows)]
    of = [(row["subject"], row["subject_type"]) for row in shown if row["subject"]]
    ids = sorted({subject for subject, kind in of if kind in ("sample", "label")})
    files = {subject: name_of(subject) for subject, kind in of if kind == "file"}
    if not ids:
        return files
    where = In(term="sample_id", literals=ids)
    rows = lake.read("samples", columns=["sample_id", "uri"], where=where)
    uris = zip(rows["sample_id"].to_pylist(), rows["uri"].to_pylist(), strict=True)
    return files | {sample_id: name_of(uri) for sample_id, uri in uris}
