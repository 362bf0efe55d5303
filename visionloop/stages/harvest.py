"""Stage `harvest`: bring back what the deployed model answered, and how sure it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from visionloop.errors import InputError
from visionloop.progress import progress
from visionloop.stages.artifacts import (
    Artifact,
    MetricsArtifact,
    log_metrics,
    markdown_table,
    write_page,
)
from visionloop.stages.opening import open_stage
from visionloop.task import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake import Lake
    from visionloop.lake.erasing.tombstones import Tombstones
    from visionloop.lake.run import Run
    from visionloop.lake.storage import FileInfo
    from visionloop.serving.harvesting import Harvest, Seen
    from visionloop.serving.segments import Position

# Event ids in one filter of the table: pyiceberg evaluates each of them against each file.
_IDS_AT_ONCE = 5_000
# A collector's reducer is behind by half a second, or by as much as it was sent bombs.
_SETTLE_SECONDS = 15.0
_SIGNED = ("round_id", "run_id")


class HarvestOutputs(NamedTuple):
    """What `harvest` returns.

    Attributes:
        lake_version: Lake version with the confidences; the one read if nothing was written.
        n_events: Events that were not read before.
        n_confidences: Inferences recorded or completed, one a row of a batch.
        n_rejected: Events rejected, each with a reason.
        n_orphans: Requests without a response, or the reverse, past the waiting time.
        n_pending: Events that still wait for their other half.
    """

    lake_version: str
    n_events: int
    n_confidences: int
    n_rejected: int
    n_orphans: int
    n_pending: int


@stage
def harvest(
    *,
    config: str,
    lake: str = "",
    round_id: str = "",
    run_id: str = "",
    events: str = "",
    metrics: MetricsArtifact | None = None,
    page: Artifact | None = None,
) -> HarvestOutputs:
    """Read the events that the endpoint logged and record each inference once.

    Where there is no lake yet and no events are named, there is nothing to do, and none is made.
    Incremental: a file is read from where the last harvest stopped, and a request whose response
    comes in a later harvest is paired then. Every event that was read is in one state, so that
    events = harvested + pending + orphan + rejected + ignored + duplicate.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        round_id: The round; empty for the current one.
        run_id: The run that harvests.
        events: File, folder or prefix of logged events; empty for the configuration's, else the
            lake's own ``events`` folder.
        metrics: Counts of events by outcome.
        page: Events by outcome, and the distribution of confidences.

    Raises:
        InputError: ``events`` is given and there is nothing there.
    """
    loop, opened = open_stage(config, lake, round_id=round_id)
    named = events or loop.serving.events
    if not named and not opened.exists() and not opened.storage.exists(opened.uri):
        # A collector may have begun before the first ingest, and then the lake's folder is there.
        write_page(page, "# Harvest\n\nThere is no lake yet; the first round makes one.\n")
        nothing = HarvestOutputs("", 0, 0, 0, 0, 0)
        log_metrics(metrics, {k: v for k, v in nothing._asdict().items() if k != "lake_version"})
        return nothing
    wait = timedelta(hours=loop.serving.pending_hours)
    now = datetime.now(UTC)
    with opened.run(stage="harvest", round_id=round_id, run_id=run_id) as run:
        files = _unread(run, opened, named, given=bool(events))
        from visionloop.lake.erasing.tombstones import Tombstones

        seen, read, refused = _read(files, Tombstones.of(opened, version=run.base))
        held = _held(run, seen, orphaned_before=now - wait)
        from visionloop.serving.harvesting import harvest_events

        found = harvest_events(
            seen, held, orphaned_before=now - wait, classes=_classes(run) if seen or held else {}
        )
        _write(run, found, read, now)
        outputs = HarvestOutputs(
            lake_version="",
            n_events=found.counts["events"],
            n_confidences=found.counts["inferences"],
            n_rejected=found.counts["rejected"],
            n_orphans=found.counts["orphan"],
            n_pending=found.counts["pending"],
        )
        counts = {**found.counts, "files": len(files), "refused": refused.total()}
        version = run.commit(outputs=outputs._asdict(), counts=counts)
    log_metrics(metrics, {k: v for k, v in outputs._asdict().items() if k != "lake_version"})
    write_page(page, _page(found, refused))
    return outputs._replace(lake_version=version)


def _unread(run: Run, lake: Lake, events: str, *, given: bool) -> list[tuple[FileInfo, Position]]:
    """Return the files that hold something new, with how far each was read."""
    from visionloop.serving.segments import Position, find, is_unread

    where = events or lake.path("events")
    _settle(where)
    try:
        found = find(where)
    except InputError:
        if given:
            raise
        return []  # nothing was logged yet
    ledger = run.read("harvest_ledger").sort_by("harvested_at").to_pylist()
    read = {row["uri"]: Position(row["bytes_read"], row["lines_read"]) for row in ledger}
    positions = [(info, read.get(info.uri, Position())) for info in found]
    return [(info, position) for info, position in positions if is_unread(info, position)]


def _settle(where: str) -> None:
    """Let a collector that keeps hashes finish with what it acknowledged before this harvest."""
    from visionloop.lake.storage import local_path, scheme_of
    from visionloop.progress import log
    from visionloop.serving.raw_spool import wait_until_reduced

    if scheme_of(where) != "file":
        return
    left = wait_until_reduced(local_path(where), _SETTLE_SECONDS)
    if left:
        log(
            f"harvest: {left} segments of acknowledged events are not reduced to hashes yet; a "
            "later harvest reads them, once a collector on this folder has run"
        )


def _read(
    files: list[tuple[FileInfo, Position]], erased: Tombstones
) -> tuple[list[Seen], dict[str, Position], Counter[str]]:
    """Read and decode what is new; bodies are forgotten as soon as they are decoded.

    Returns:
        The events, how far each file is read, and what collectors refused meanwhile, by reason.
    """
    from visionloop.serving.harvesting import see
    from visionloop.serving.seen import unless_erased
    from visionloop.serving.segments import Reader

    seen: list[Seen] = []
    positions: dict[str, Position] = {}
    refused: Counter[str] = Counter()
    with progress("harvest", total=len(files), unit="files") as bar:
        for info, position in files:
            reader = Reader(info, position)
            seen += [unless_erased(see(event), erased) for event in reader.events()]
            positions[info.uri] = reader.position
            refused += reader.refused
            bar.advance(1)
        bar.note(f"{len(seen)} events")
    return seen, positions, refused


def _held(run: Run, seen: list[Seen], *, orphaned_before: datetime) -> list[Seen]:
    """Return the rows of earlier harvests that this one may change.

    Those with an event id that turned up again, and those that waited long enough.
    """
    from visionloop.serving.harvesting import seen_rows

    index = run.read("harvest_events", columns=["event_id", "state", "received_at"])
    new = {one.event_id for one in seen if one.event_id}
    wanted = set()
    for event_id, state, received in zip(
        index["event_id"].to_pylist(),
        index["state"].to_pylist(),
        index["received_at"].to_pylist(),
        strict=True,
    ):
        waited = state == "pending" and (received is None or received < orphaned_before)
        if event_id in new or (event_id and waited):
            wanted.add(event_id)
    held: list[Seen] = []
    for ids in _slices(sorted(wanted)):
        held += seen_rows(run.read("harvest_events", where=_among(ids)))
    return held


def _classes(run: Run) -> Mapping[str, list[str]]:
    rows = run.read("experiments", columns=["model_id", "classes"]).to_pylist()
    return {row["model_id"]: row["classes"] for row in rows if row["classes"]}


def _write(run: Run, found: Harvest, read: Mapping[str, Position], now: datetime) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    from visionloop.lake.schemas import arrow_schema

    run.append("harvest_events", found.new_events)
    run.append("confidences", found.new_confidences)
    for ids in _slices(found.changed_ids):
        for table, rows in (
            ("harvest_events", found.changed_events),
            ("confidences", found.changed_confidences),
        ):
            mine = rows.filter(pc.is_in(rows["event_id"], pa.array(ids, pa.string())))
            run.replace(table, mine, _among(ids))
    ledger = [
        {
            "uri": uri,
            "bytes_read": position.bytes_read,
            "lines_read": position.lines_read,
            "harvested_at": now,
        }
        for uri, position in read.items()
    ]
    schema = pa.schema([f for f in arrow_schema("harvest_ledger") if f.name not in _SIGNED])
    run.append("harvest_ledger", pa.Table.from_pylist(ledger, schema=schema))


def _among(ids: list[str]) -> Any:
    from pyiceberg.expressions import In

    return In(term="event_id", literals=ids)


def _slices(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]


def _page(found: Harvest, refused: Counter[str]) -> str:
    """Write what was read, what became of it, and how sure the model was."""
    counts = found.counts
    lines = [
        "# Harvest",
        "",
        f"{counts['events']} events were read and gave {counts['inferences']} confidences.",
        "",
        markdown_table(
            ["state", "reason", "events"],
            [
                [state, reason or "—", number]
                for (state, reason), number in sorted(found.reasons.items())
            ],
        ),
    ]
    if refused:
        lines += ["", "## Refused by the collector", ""]
        lines += ["KServe's logger does not try again: of its events these are lost.", ""]
        lines += [markdown_table(["reason", "events"], [[*one] for one in sorted(refused.items())])]
    scores = [*_confident(found.new_confidences), *_confident(found.changed_confidences)]
    if scores:
        tenths = Counter(min(int(score * 10), 9) for score in scores)
        rows = [[f"{n / 10:.1f}-{(n + 1) / 10:.1f}", tenths[n]] for n in range(10)]
        lines += ["", "## Confidence of the top class", ""]
        lines += [markdown_table(["confidence", "images"], rows)]
    return "\n".join(lines) + "\n"


def _confident(rows: pa.Table) -> list[float]:
    return [score for score in rows["confidence"].to_pylist() if score is not None]
