"""Erase samples: rows, vectors, pictures and files, from every version of a lake; with a proof."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute, add_lake_options, lake_config, open_existing
from visionloop.cli.parser import say, show
from visionloop.errors import InputError, VisionloopError
from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.erasing.proof import Proof
    from visionloop.lake.erasing.work import Erasure

_ID = re.compile(r"[0-9a-f]{64}")
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "samples", nargs="*", metavar="SAMPLE_ID", help="64 hexadecimal digits, or the file"
    )
    parser.add_argument(
        "--from", dest="file", metavar="FILE", help="a file with one id a line; - reads stdin"
    )
    parser.add_argument(
        "--delete-source",
        action="store_true",
        help="delete the originals outside of the lake as well, where their bytes are still those",
    )
    parser.add_argument(
        "--events",
        action="append",
        default=[],
        metavar="URI",
        help="logged events outside of the lake; repeatable",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="wait so long for a run that holds a round (default 0: refuse)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be erased")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.lake import Lake
    from visionloop.lake.erasing.work import erase, read_journal
    from visionloop.lake.storage import normalise
    from visionloop.media.near_copies import near_copies
    from visionloop.serving.erasing import LoggedEvents

    config = lake_config(args)
    named = open_existing(config.lake, config.catalog, config.name)
    loops = Lake.loops(config.lake, catalog=config.catalog)
    lakes = [Lake.open(config.lake, catalog=config.catalog, loop=name) for name in loops]
    begun = read_journal(named)
    ids = _ids(args)
    if not ids and not begun:
        raise InputError("no sample was named", remedy="Give ids, or --from FILE")
    if begun:
        say(f"going on with the erasure that was begun at {begun['begun_at']}")
    if not args.dry_run and not args.yes:
        _ask(len(ids | set((begun.get("traces") or {}).get("ids", ()))), lakes[0].uri, loops)
    copies = [row | {"loop": lake.loop} for lake in lakes for row in near_copies(lake, ids)]
    places = [lakes[0].path("events"), *(normalise(absolute(uri)) for uri in args.events)]
    if config.serving.events and normalise(config.serving.events) not in places:
        places.append(normalise(config.serving.events))
    wanted = ids | set((begun.get("traces") or {}).get("ids", ()))
    tasks = _Tasks() if args.dry_run else _delete_tasks(config, named, lakes, wanted)
    done = erase(
        lakes,
        ids,
        [LoggedEvents(place) for place in places],
        delete_source=args.delete_source,
        dry_run=args.dry_run,
        wait=60 * args.wait,
        lease_minutes=config.rounds.lease_minutes,
        advance=lambda step: None if args.json else say(f"erase: {step}"),
    )
    result = asdict(done) | {"clean": done.proof.clean if done.proof else None}
    done.tasks = [one for one in done.tasks if one not in tasks.deleted | tasks.recalled]
    result |= {"near_copies": copies, "tasks": done.tasks, "tasks_deleted": len(tasks.deleted)}
    text = [*_told(done, config, copies), *tasks.told]
    show(result, as_json=args.json, text="\n".join(text))
    return 0 if done.proof is None or done.proof.clean else 1


@dataclass
class _Tasks:
    """What became of the tasks at the labelling tool.

    Attributes:
        deleted: Those that were deleted now, as ``provider: id``.
        recalled: Those that were taken back before.
        told: Lines about it.
    """

    deleted: set[str] = field(default_factory=set)
    recalled: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)


def _delete_tasks(
    config: LoopConfig, named: Lake, lakes: Sequence[Lake], ids: Collection[str]
) -> _Tasks:
    """Delete the samples' tasks at Label Studio, where the configuration names one.

    Before the lake forgets which they were. A server that does not answer holds nothing up: the
    tasks are then named, as those of other tools are, and those that were not found.
    """
    if config.labeling.provider != "label_studio":
        return _Tasks()
    from visionloop.labeling.label_studio.deleting import delete_tasks

    asked = [
        row
        for lake in lakes
        for row in lake.read(
            "label_requests",
            columns=["sample_id", "external_id", "recalled"],
            where="provider == 'label_studio'",
        ).to_pylist()
        if row["sample_id"] in ids and row["external_id"]
    ]
    recalled = {_task(row["external_id"]) for row in asked if row["recalled"]}
    try:
        deleted = {_task(task) for task in delete_tasks(config, named, sorted(ids))}
    except (VisionloopError, ModuleNotFoundError) as error:
        return _Tasks(told=[f"  tasks at Label Studio were not deleted: {error}"])
    were = counted(len(deleted), "task was", "tasks were")
    told = [f"{were} deleted at Label Studio, answers included."]
    lost = {_task(row["external_id"]) for row in asked} - recalled - deleted
    if lost:
        were = counted(len(lost), "task was", "tasks were")
        told.append(
            f"  {were} not found at {config.labeling.label_studio.url}: the token's "
            "user sees no project with them whose description says that it is this lake's"
        )
    return _Tasks(deleted, recalled, told)


def _task(external_id: object) -> str:
    return f"label_studio: {external_id}"


def _ids(args: argparse.Namespace) -> set[str]:
    found = [(one, "the arguments") for one in args.samples]
    if args.file:
        try:
            text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read: {error}", where=args.file) from error
        for number, line in enumerate(text.splitlines(), start=1):
            if plain := line.partition("#")[0].strip():
                found.append((plain, f"{args.file}, line {number}"))
    return {_id(one, where) for one, where in found}


def _id(told: str, where: str) -> str:
    """Return the id that is told, or that of the file that is named."""
    if _ID.fullmatch(told.lower()):
        return told.lower()
    try:
        with Path(told).expanduser().open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{told!r} is no sample's id, and no file that could be read",
            where=where,
            remedy="Name the image's file, or its id of 64 hexadecimal digits: the SHA-256 of its "
            "bytes, as `sha256sum photo.jpg` prints it",
        ) from error
    say(f"{told} is {found}")
    return found


def _ask(n: int, uri: str, loops: list[str]) -> None:
    if not sys.stdin.isatty():
        raise InputError(
            "erasing cannot be undone, and there is no terminal to ask",
            remedy="Look with --dry-run first, then give --yes",
        )
    say(
        f"{n} samples will be erased from every version of the lake {uri} (loops: "
        f"{', '.join(loops)}).\nThis cannot be undone, and drops the versions that hold them."
    )
    if input("Type yes to erase them: ").strip().lower() != "yes":
        raise VisionloopError("nothing was erased", remedy="Type yes, or give --yes")


def _told(done: Erasure, config: LoopConfig, copies: list[dict[str, Any]]) -> list[str]:
    were = (
        ("sample would be", "samples would be") if done.dry_run else ("sample was", "samples were")
    )
    lines = [f"{counted(done.samples, *were)} erased from {config.lake}"]
    changed = any(one.removed or one.changed for one in done.tables.values())
    if not changed and not done.beside.removed:
        lines = [f"nothing was left to erase of {counted(done.samples, 'sample')}"]
    for name, one in sorted(done.tables.items()):
        lines.append(
            f"  {name}: {one.removed:,} rows removed, {one.changed:,} kept without them, "
            f"{one.files:,} files rewritten"
        )
    for loop, gone in done.dropped.items():
        lines.append(
            f"  {loop}: {len(gone.versions):,} older versions can no longer be read, "
            f"{gone.snapshots:,} snapshots and {gone.files:,} files dropped"
        )
    lines.append(
        f"  beside the tables: {len(done.beside.removed):,} files removed, "
        f"{len(done.beside.rewritten):,} lost lines; logged events: "
        f"{sum(one.lines for one in done.events):,} lines overwritten, "
        f"{sum(len(one.objects) for one in done.events):,} objects removed"
    )
    if done.deleted:
        lines.append(f"  originals deleted: {len(done.deleted):,}")
    lines += ["", "Trained with them:", *(_models(done) or ["  no model"])]
    if copies:
        lines += ["", "The same picture stays in other samples; erase them too if it is to go:"]
        lines += [
            f"  {one['sample_id']} {one['uri']}"
            + ("" if one["likeness"] is None else f" (likeness {one['likeness']:.4f})")
            for one in copies[:_SHOWN]
        ]
        if len(copies) > _SHOWN:
            lines.append(f"  … and {len(copies) - _SHOWN} more (--json names all)")
    lines += ["", "Out of reach, see to these yourself:", *_out_of_reach(done, config)]
    if done.proof is not None:
        lines += ["", *_proof(done.proof)]
    return lines


def _models(done: Erasure) -> list[str]:
    lines = [
        f"  {one.model_id} ({one.state}, loop {one.loop})"
        + (f", named by {', '.join(one.named_by)}" if one.named_by else "")
        for one in done.models
    ]
    if lines:
        lines.append("  A model is not rid of what it has learnt: train again, and replace them.")
    return lines


def _out_of_reach(done: Erasure, config: LoopConfig) -> list[str]:
    lines = []
    for uri, why in list(done.originals.items())[:_SHOWN]:
        lines.append(f"  original {uri}: {why}")
    if len(done.originals) > _SHOWN:
        lines.append(f"  … and {len(done.originals) - _SHOWN} more (--json names all)")
    if done.tasks:
        some = ", ".join(done.tasks[:_SHOWN])
        lines.append(f"  label requests at a provider: {some}; delete these tasks there")
    named = [source.labels for source in config.sources] + [config.labeling.labels]
    named = [uri for uri in named if uri not in ("", "none", "folder", "source")]
    lines += [f"  the file of labels {uri}" for uri in dict.fromkeys(named)]
    tables = dict.fromkeys(one.metadata_table for one in config.sources if one.metadata_table)
    lines += [f"  the table of metadata {uri}" for uri in tables]
    if done.runs:
        some = ", ".join(done.runs[:_SHOWN])
        lines.append(f"  artifacts of pipeline runs, which list ids of samples: runs {some}")
    lines += [
        "  backups of the lake (a restored one brings the samples back: erase them again)",
        "  reports that were sent or copied, and exports of this lake",
    ]
    if config.lake.startswith("gs://"):
        lines.append("  older object versions and soft-deleted objects of the bucket")
    else:
        lines.append("  freed blocks of the disk, and its snapshots")
    return lines


def _proof(proof: Proof) -> list[str]:
    read = f"{proof.files:,} files, {proof.bytes:,} bytes and {proof.unpacked:,} unpacked ones" + (
        f", {proof.catalog_rows:,} rows of the catalog" if proof.catalog_rows else ""
    )
    lines = [f"Read to prove it: {read}; found {len(proof.finds) + proof.events}."]
    lines += [f"  ✗ {uri}: {', '.join(kinds)}" for uri, kinds in proof.finds.items()]
    if proof.events:
        lines.append(f"  ✗ {proof.events} logged events came meanwhile: run the command again")
    lines += [
        f"  ✗ damaged, what it holds cannot be told: {uri}; remove it, and run the command again"
        for uri in proof.undecoded
    ]
    return lines
