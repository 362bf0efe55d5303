"""Stage `harvest`: bring back what the deployed model answered, and how sure it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

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
    from pathlib import Path

    from visionloop.lake import Lake
    from visionloop.lake.run import Run
    from visionloop.lake.storage import FileInfo
    from visionloop.progress import Progress
    from visionloop.serving.events import Event
    from visionloop.serving.joining import Joined
    from visionloop.serving.segments import Position

# Rows of one commit to a table, as they lie in memory.
_WRITTEN_BYTES = 16 * 2**20
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
    from visionloop.serving.spilling import Scratch

    with opened.run(stage="harvest", round_id=round_id, run_id=run_id) as run, Scratch() as scratch:
        files = _unread(run, opened, named, given=bool(events))
        joined, read, refused = _join(opened, run, files, scratch, orphaned_before=now - wait)
        _write(opened, run, joined, read, now)
        outputs = HarvestOutputs(
            lake_version="",
            n_events=joined.counts["events"],
            n_confidences=joined.counts["inferences"],
            n_rejected=joined.counts["rejected"],
            n_orphans=joined.counts["orphan"],
            n_pending=joined.counts["pending"],
        )
        counts = {**_accounts(joined), "files": len(files), "refused": refused.total()}
        version = run.commit(outputs=outputs._asdict(), counts=counts)
    log_metrics(metrics, {f"n_{name}": number for name, number in _accounts(joined).items()})
    log_metrics(metrics, {k: v for k, v in outputs._asdict().items() if k != "lake_version"})
    write_page(page, _page(joined, refused))
    return outputs._replace(lake_version=version)


def _unread(run: Run, lake: Lake, events: str, *, given: bool) -> list[tuple[FileInfo, Position]]:
    """Return the files that hold something new, with how far each was read."""
    from visionloop.serving.segments import Position, find, is_unread, positions

    where = events or lake.path("events")
    _settle(where)
    try:
        found = find(where)
    except InputError:
        if given:
            raise
        return []  # nothing was logged yet
    read = positions(run.read("harvest_ledger"))
    at = [(info, read.get(info.uri, Position())) for info in found]
    return [(info, position) for info, position in at if is_unread(info, position)]


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


def _join(
    lake: Lake,
    run: Run,
    files: list[tuple[FileInfo, Position]],
    scratch: Path,
    *,
    orphaned_before: datetime,
) -> tuple[Joined, dict[str, Position], Counter[str]]:
    """Read and decode what is new, and pair it with what earlier harvests hold.

    Returns:
        What is to be written, how far each file is read, and what collectors refused meanwhile, by
        reason.
    """
    from visionloop.lake.erasing.tombstones import Tombstones
    from visionloop.serving.held_rows import held_rows
    from visionloop.serving.joining import Joiner, parts_for

    joiner = Joiner(scratch, parts_for(files), Tombstones.of(lake, version=run.base))
    read: dict[str, Position] = {}
    refused: Counter[str] = Counter()
    with progress("harvest", total=len(files), unit="files") as bar:
        joiner.read(_events(files, read, refused, bar))
        bar.note(f"{joiner.events} events")
    held = held_rows(lake, run.base, joiner.hashes(), orphaned_before=orphaned_before)
    joined = joiner.join(held, orphaned_before=orphaned_before, classes=_classes(run))
    return joined, read, refused


def _events(
    files: list[tuple[FileInfo, Position]],
    read: dict[str, Position],
    refused: Counter[str],
    bar: Progress,
) -> Iterator[Event]:
    """Yield the events of all files; a file's position is noted once they are used up."""
    from visionloop.serving.segments import Reader

    for info, position in files:
        reader = Reader(info, position)
        yield from reader.events()
        read[info.uri] = reader.position
        refused.update(reader.refused)
        bar.advance(1)


def _classes(run: Run) -> Mapping[str, list[str]]:
    rows = run.read("experiments", columns=["model_id", "classes"]).to_pylist()
    return {row["model_id"]: row["classes"] for row in rows if row["classes"]}


def _write(
    lake: Lake, run: Run, joined: Joined, read: Mapping[str, Position], now: datetime
) -> None:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema
    from visionloop.serving.embedding_links import find_links, with_links
    from visionloop.serving.held_rows import remove

    links = find_links(lake, run.base, joined.unlinked.parts(_WRITTEN_BYTES))
    changed = joined.changed_ids
    if len(changed):
        # Their rows are put anew by what was read: of a lake that nobody has harvested since.
        run.refuse_stale("harvest_events", "confidences", "harvest_ledger")
        for table in ("harvest_events", "confidences"):
            remove(run, table, changed)
    for table, rows in (
        ("harvest_events", joined.new_events),
        ("confidences", joined.new_confidences),
        ("harvest_events", joined.changed_events),
        ("confidences", joined.changed_confidences),
    ):
        for part in rows.parts(_WRITTEN_BYTES):
            run.append(table, with_links(part, links) if table == "confidences" else part)
            pa.default_memory_pool().release_unused()
    ledger = [
        {
            "uri": uri,
            "bytes_read": position.bytes_read,
            "lines_read": position.lines_read,
            "harvested_at": now,
            "generation": position.generation or None,
        }
        for uri, position in read.items()
    ]
    schema = pa.schema([f for f in arrow_schema("harvest_ledger") if f.name not in _SIGNED])
    run.append("harvest_ledger", pa.Table.from_pylist(ledger, schema=schema))


def _accounts(joined: Joined) -> dict[str, int]:
    """Return the counts, orphans by which half there is, and rejected events by their reason."""
    from visionloop.serving.pairing import NO_REQUEST, NO_RESPONSE

    return {
        **joined.counts,
        "orphan_requests": joined.reasons["orphan", NO_RESPONSE],
        "orphan_responses": joined.reasons["orphan", NO_REQUEST],
        **{
            f"rejected_{reason}": number
            for (state, reason), number in sorted(joined.reasons.items())
            if state == "rejected"
        },
    }


def _page(joined: Joined, refused: Counter[str]) -> str:
    """Write what was read, what became of it, and how sure the model was."""
    counts = joined.counts
    lines = [
        "# Harvest",
        "",
        f"{counts['events']} events were read and gave {counts['inferences']} confidences.",
        "",
        markdown_table(
            ["state", "reason", "events"],
            [
                [state, reason or "—", number]
                for (state, reason), number in sorted(joined.reasons.items())
            ],
        ),
    ]
    if joined.later:
        lines += ["", "## Earlier events", ""]
        rows = [[old, new, number] for (old, new), number in sorted(joined.later.items())]
        lines += [markdown_table(["was", "is", "events"], rows)]
    if refused:
        lines += ["", "## Refused by the collector", ""]
        lines += ["KServe's logger does not try again: of its events these are lost.", ""]
        lines += [markdown_table(["reason", "events"], [[*one] for one in sorted(refused.items())])]
    if joined.tenths:
        rows = [[f"{n / 10:.1f}-{(n + 1) / 10:.1f}", joined.tenths[n]] for n in range(10)]
        lines += ["", "## Confidence of the top class", ""]
        lines += [markdown_table(["confidence", "images"], rows)]
    return "\n".join(lines) + "\n"
