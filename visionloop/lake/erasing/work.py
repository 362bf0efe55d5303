"""Erases samples from a lake, and proves it.

What is done can be killed anywhere: a journal in the lake's root says what is looked for until the
proof has found nothing, and the same command goes on. First the newest version loses the rows, with
tombstones in their places; then the versions that still have them go, with their files; then the
files beside the tables; then everything is read.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from visionloop.errors import InputError, VisionloopError
from visionloop.lake.catalog import catalog_errors, sqlite_file
from visionloop.lake.erasing import beside, history, rewriting
from visionloop.lake.erasing.gathering import Gathered, Model, gather
from visionloop.lake.erasing.proof import Proof, prove
from visionloop.lake.erasing.scanning import Scanner
from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.lake.erasing.traces import Traces
from visionloop.lake.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.lake.schemas import ERASED
from visionloop.lake.storage import local_path, scheme_of
from visionloop.words import round_name

if TYPE_CHECKING:
    from pyiceberg.table import Table

STAGE = "erase"
_POLL_SECONDS = 2.0


class Events(Protocol):
    """Files of logged events."""

    where: str

    def carried(self, ids: frozenset[str]) -> tuple[set[str], set[str]]:
        """Return the ids of the events that carried samples, and the samples that were found."""

    def erase(self, traces: Traces, *, dry_run: bool = False) -> Any:
        """Erase every event that carried a sample, and the answer to it."""


@dataclass
class Erasure:
    """What an erasure did, or would do.

    Attributes:
        samples: How many samples were to be erased.
        tables: What was done to the rows, by loop and table as ``loop.table``.
        dropped: What was dropped of the history, by loop.
        beside: What was done to files beside the tables.
        events: What was done to files of logged events.
        deleted: Originals that were deleted.
        originals: Originals that were not, with the reason.
        tasks: Label requests at a provider that name the samples.
        runs: Runs whose artifacts may name them.
        models: Models that were trained with them.
        proof: What the proof read and found; None for a dry run.
        dry_run: Whether nothing was done.
    """

    samples: int
    tables: dict[str, rewriting.Rewritten] = field(default_factory=dict)
    dropped: dict[str, history.Dropped] = field(default_factory=dict)
    beside: beside.Beside = field(default_factory=beside.Beside)
    events: list[Any] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    proof: Proof | None = None
    dry_run: bool = False


def erase(
    lakes: Sequence[Lake],
    sample_ids: Collection[str],
    events: Sequence[Events],
    *,
    delete_source: bool = False,
    dry_run: bool = False,
    wait: float = 0.0,
    lease_minutes: float = 30.0,
    advance: Callable[[str], None] = lambda step: None,
) -> Erasure:
    """Erase samples from every loop of a lake.

    Args:
        lakes: Every loop of the lake.
        sample_ids: Ids of the samples; those of an erasure that was killed are added to them.
        events: Where events are logged; the first are those below the lake's root.
        delete_source: Delete the originals outside of the lake as well.
        dry_run: Only tell what would be done.
        wait: Seconds to wait for live runs that hold a round.
        lease_minutes: How long a run on another machine counts as alive after its last sign.
        advance: Called with what is done next.

    Raises:
        InputError: The lake holds nothing of a sample.
        VisionloopError: A live run holds a round, or another process writes.
    """
    for lake in lakes:
        _wait_for_round(lake, time.monotonic() + wait, lease_minutes)
    advance("look for what tells of them")
    found, begun = _found(lakes, sample_ids, events)
    if not found.traces:
        raise InputError("no sample was named", remedy="Give the ids of samples, or --from FILE")
    done = Erasure(
        len(found.traces.ids),
        tasks=sorted(found.tasks),
        runs=sorted(found.runs),
        models=found.models,
        dry_run=dry_run,
    )
    if not dry_run:
        _write_journal(lakes[0], found, begun)
    stones = Tombstones.of_all(lakes).with_more(found.traces.ids, found.files)
    for lake in lakes:
        advance(f"tables of {lake.loop}")
        with catalog_errors(lake.catalog_uri, files=lake.place):
            _tables(lake, found.traces, stones, done)
    advance("files beside the tables")
    scanner = Scanner(found.traces)
    done.events = [one.erase(found.traces, dry_run=dry_run) for one in events]
    done.beside = beside.clear(lakes, scanner, events=events[0].where, dry_run=dry_run)
    done.deleted, done.originals = beside.originals(
        found.originals.items(), delete=delete_source and not dry_run
    )
    done.originals |= dict.fromkeys(sorted(found.sidecars), "a sidecar: see what it says of them")
    done.originals |= dict.fromkeys(
        sorted(found.sources), "a table, list or set there names them: take their rows out"
    )
    if dry_run:
        return done
    _clean_catalog(lakes[0])
    advance("read everything, to prove it")
    done.proof = prove(lakes, found.traces, [one.where for one in events[1:]])
    done.proof.events = sum(_left(one.erase(found.traces, dry_run=True)) for one in events)
    if done.proof.clean:
        lakes[0].storage.delete(lakes[0].path(beside.JOURNAL))
    return done


def _left(blanked: Any) -> int:
    return int(blanked.lines) + len(blanked.objects)


def _wait_for_round(lake: Lake, until: float, lease_minutes: float) -> None:
    while True:
        held = lake.rounds.current()
        who = lake.rounds.live_holder(held, lease_minutes=lease_minutes) if held else ""
        if not held or not who:
            return
        if time.monotonic() >= until:
            raise VisionloopError(
                f"{round_name(held.round_id)} is being run by {who}: its tasks hold what is to go",
                where=f"loop {lake.loop} of {lake.place}",
                remedy="Wait for it to end, with --wait MINUTES, or stop it; nothing was erased",
            )
        time.sleep(min(_POLL_SECONDS, max(0.0, until - time.monotonic())))


def _found(
    lakes: Sequence[Lake], sample_ids: Collection[str], events: Sequence[Events]
) -> tuple[Gathered, dict[str, Any]]:
    """Return what is known of the samples, with what an erasure that was killed knew."""
    begun = read_journal(lakes[0])
    before = Traces.of_json(begun["traces"]) if begun else Traces(frozenset())
    ids = frozenset(sample_ids) | before.ids
    if not ids:
        return Gathered(before), begun
    found = gather(lakes, ids)
    for one in events:
        carried, known = one.carried(ids)
        found.traces |= Traces(ids, events=frozenset(carried))
        found.known |= known
    stones = [Tombstones.of(lake) for lake in lakes]
    unknown = sorted(
        one
        for one in frozenset(sample_ids) - found.known - before.ids
        if not any(one in stone for stone in stones)
        and not any(info for info in _media(lakes[0], one))
    )
    if unknown:
        raise InputError(
            f"the lake holds nothing of {len(unknown)} samples, the first is {unknown[0]}",
            where=lakes[0].uri,
            remedy="Give ids as `samples` has them: 64 hexadecimal digits",
        )
    found.traces |= before
    for uri, samples in (begun.get("originals") or {}).items():
        found.originals[uri] |= set(samples)
    found.files |= {(uri, generation) for uri, generation in begun.get("files") or ()}
    found.sidecars |= set(begun.get("sidecars") or ())
    found.sources |= set(begun.get("sources") or ())
    found.tasks |= set(begun.get("tasks") or ())
    found.runs |= set(begun.get("runs") or ())
    told = {(model.loop, model.model_id) for model in found.models}
    found.models += [
        Model(**model)
        for model in begun.get("models") or ()
        if (model["loop"], model["model_id"]) not in told
    ]
    return found, begun


def _media(lake: Lake, sample_id: str) -> list[str]:
    folder = lake.path("media", sample_id[:2])
    if not lake.storage.exists(folder):
        return []
    return [info.uri for info in lake.storage.list(folder) if sample_id in info.uri]


def read_journal(lake: Lake) -> dict[str, Any]:
    """Return what an erasure that has not ended was about, empty where there is none."""
    uri = lake.path(beside.JOURNAL)
    if not lake.storage.exists(uri):
        return {}
    told: dict[str, Any] = json.loads(lake.storage.read(uri))
    return told


def _write_journal(lake: Lake, found: Gathered, begun: dict[str, Any]) -> None:
    told = {
        "begun_at": begun.get("begun_at") or datetime.now(UTC).isoformat(),
        "traces": found.traces.to_json(),
        "files": sorted(found.files),
        "sidecars": sorted(found.sidecars),
        "sources": sorted(found.sources),
        "originals": {uri: sorted(samples) for uri, samples in found.originals.items()},
        "tasks": sorted(found.tasks),
        "runs": sorted(found.runs),
        "models": [vars(model) for model in found.models],
    }
    uri = lake.path(beside.JOURNAL)
    lake.storage.write(uri, json.dumps(told).encode())
    if scheme_of(uri) == "file":
        local_path(uri).chmod(0o600)


def _tables(lake: Lake, traces: Traces, stones: Tombstones, done: Erasure) -> None:
    suspects = history.Suspects(lake, Scanner(traces))
    suspects.look()
    wanted = suspects.to_rewrite()
    held = Tombstones.of(lake)
    if done.dry_run:
        _foretell(suspects, wanted, done)
        return
    if wanted or len(held.names) < len(stones.names) or held.files < stones.files:
        _rewrite(suspects, held, stones, done)
    with writer_lock(lake.catalog_uri, lake.loop):
        suspects.look()
        dropped = done.dropped.setdefault(lake.loop, history.Dropped())
        history.drop(suspects, dropped)


def _rewrite(
    suspects: history.Suspects, held: Tombstones, stones: Tombstones, done: Erasure
) -> None:
    lake, traces = suspects.lake, suspects.scanner.traces
    mine: dict[str, rewriting.Rewritten] = {}
    with lake.run(stage=STAGE, inputs={"samples": len(traces.ids)}) as run:
        run.refuse_stale()  # from here on nobody else writes
        suspects.look()
        run.append(ERASED, stones.rows(held, datetime.now(UTC)))
        for name in suspects.to_rewrite():

            def change(table: Table, properties: dict[str, str], name: str = name) -> None:
                mine[name] = rewriting.rewrite(
                    name, table, traces, stones, suspects.held.get(name, set()), properties
                )

            run.rewrite(name, change, same_rows=False)
        run.commit(outputs={"removed": {name: one.removed for name, one in mine.items()}})
    done.tables |= {f"{lake.loop}.{name}": one for name, one in mine.items()}


def _foretell(suspects: history.Suspects, wanted: Sequence[str], done: Erasure) -> None:
    lake = suspects.lake
    for name in wanted:
        table = lake.table(name)
        if table is not None:
            done.tables[f"{lake.loop}.{name}"] = rewriting.count(
                name, table, suspects.scanner.traces, suspects.held.get(name, set())
            )
    going = suspects.going()
    told, records = history.versions_of(lake, going)
    snapshots = sum(len(some) for some in going.values()) + len(records - going["stage_runs"])
    files = sum(len(some) for some in suspects.held.values())
    done.dropped[lake.loop] = history.Dropped(told, snapshots, files)


def _clean_catalog(lake: Lake) -> None:
    """Leave no free page in a SQLite catalog: deleted rows stay readable in those."""
    file = sqlite_file(lake.catalog_uri)
    if file is None:
        return
    import sqlite3

    with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
