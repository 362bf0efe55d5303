"""Look after a lake: status, versions, check, compact, vacuum, backup, restore."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import show
from visionloop.errors import InputError
from visionloop.words import round_number

if TYPE_CHECKING:
    from visionloop.lake import Lake

_SAFETY_HOURS = 1.0
_MIN_FILES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, does: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=does, description=does)
        add_lake_options(added)
        added.add_argument("--json", action="store_true", help="print one JSON object")
        return added

    action("status", "rounds, tables, media, model in service, events to harvest, disk")
    listing = action("versions", "every stage run with the version that it made, newest last")
    listing.add_argument("--last", type=int, metavar="N", help="only the last N")
    action("check", "every reference resolves, every count reconciles; exit status 1 if not")
    compact = action("compact", "merge the small files of each table; no row changes")
    compact.add_argument(
        "--table", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    compact.add_argument(
        "--min-files",
        type=int,
        default=_MIN_FILES,
        metavar="N",
        help=f"leave a table with fewer small files alone (default {_MIN_FILES})",
    )
    compact.add_argument("--dry-run", action="store_true", help="only tell what would be merged")
    vacuum = action("vacuum", "remove old versions, and files that nothing names any more")
    limit = vacuum.add_mutually_exclusive_group()
    limit.add_argument("--keep-versions", type=int, metavar="N", help="keep the newest N versions")
    limit.add_argument(
        "--older-than", type=float, metavar="DAYS", help="drop versions replaced so long ago"
    )
    vacuum.add_argument(
        "--safety-hours",
        type=float,
        default=_SAFETY_HOURS,
        metavar="HOURS",
        help=f"remove nothing younger (default {_SAFETY_HOURS:g})",
    )
    vacuum.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    backup = action("backup", "copy the newest version to a folder or bucket prefix")
    backup.add_argument("destination", metavar="DEST", help="an empty folder, path or gs://")
    backup.add_argument("--events", action="store_true", help="copy the logged events too")
    restore = action("restore", "make a lake of a backup, at any empty root")
    restore.add_argument("source", metavar="SRC", help="where the backup lies")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "status": _status,
        "versions": _versions,
        "check": _check,
        "compact": _compact,
        "vacuum": _vacuum,
        "backup": _backup,
        "restore": _restore,
    }
    return actions[args.action](args)


def _open(args: argparse.Namespace) -> Lake:
    from visionloop.lake import Lake

    config = lake_config(args)
    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    # Opening a catalog makes one: a mistyped path must not become a lake.
    if not lake.storage.exists(lake.uri):
        raise InputError("there is no lake here", where=lake.place, remedy="Correct --lake")
    if not lake.version():
        raise InputError(
            f"the lake holds nothing of the loop {lake.loop!r}",
            where=lake.place,
            remedy="Name the loop with --loop or --config",
        )
    return lake


def _status(args: argparse.Namespace) -> int:
    from visionloop.lake.status import status

    lake = _open(args)
    held = status(lake) | {"events": _events(lake)}
    show(held, as_json=args.json, text=_status_text(held))
    return 0


def _events(lake: Lake) -> dict[str, int]:
    """Count the logged events that no harvest has read: whole files by their size."""
    from visionloop.serving.segments import Position, find, is_unread, positions

    try:
        found = find(lake.path("events"))
    except InputError:
        found = []  # nothing was logged yet
    read = positions(lake.read("harvest_ledger"))
    new = [info for info in found if is_unread(info, read.get(info.uri, Position()))]
    left = sum(info.size - read.get(info.uri, Position()).bytes_read for info in new)
    return {"files": len(found), "unread_files": len(new), "unread_bytes": max(left, 0)}


def _status_text(held: dict[str, Any]) -> str:
    media, events, disk, opened = held["media"], held["events"], held["disk"], held["open_round"]
    rounds = ", ".join(f"{n} {state}" for state, n in held["rounds"].items()) or "none"
    lines = [
        f"lake        {held['lake']}",
        f"loop        {held['loop']}, schema version {held['schema_version']}",
        f"version     {held['version']}, {held['versions']} can be read",
        f"rounds      {rounds}",
    ]
    if opened:
        lines.append(
            f"open round  {round_number(opened['round_id'])}, {opened['state']} since "
            f"{opened['updated_at']:%Y-%m-%d %H:%M} UTC, held by {opened['holder']}"
        )
    lines += [
        f"in service  {held['in_service'] or 'no model yet'}",
        f"media       {media['referenced']:,} where they were found, {media['copied']:,} copied",
        f"events      {events['files']:,} files, {events['unread_files']:,} with something new "
        f"({_size(events['unread_bytes'])})",
        f"disk        {_size(disk['bytes'])}"
        + (f", {_size(disk['free'])} free" if disk["free"] is not None else ""),
        "",
        f"{'table':<28}{'rows':>12}{'files':>8}{'size':>12}{'snapshots':>11}",
    ]
    lines += [
        f"{t['table']:<28}{t['rows']:>12,}{t['files']:>8,}{_size(t['bytes']):>12}"
        f"{t['snapshots']:>11,}"
        for t in held["tables"]
    ]
    if held["fragmented"]:
        named = ", ".join(held["fragmented"])
        lines += ["", f"many small files: {named}; merge them with: visionloop lake compact"]
    return "\n".join(lines)


def _versions(args: argparse.Namespace) -> int:
    from visionloop.lake.status import history

    lake = _open(args)
    runs, upcoming = history(lake)[-args.last if args.last else 0 :], lake.rounds.upcoming()
    lines = [
        f"{'':>5} {'version':<17}{'stage':<15}{'round':<10}{'finished (UTC)':<18}{'rows changed'}"
    ]
    for one in runs:
        changed = ", ".join(
            f"{name} {f'{n:+,}' if n is not None else '?'}" for name, n in one["changed"].items()
        )
        lines.append(
            f"{one['sequence']:>5} {one['version'] + ('' if one['readable'] else '*'):<17}"
            f"{one['stage']:<15}{round_number(one['round_id'], upcoming):<10}"
            f"{one['finished_at']:%Y-%m-%d %H:%M}  {changed}"
        )
    if not all(one["readable"] for one in runs):
        lines.append(
            "* its rows are gone: a vacuum removed them, samples were erased, or the lake was "
            "restored"
        )
    show({"versions": runs}, as_json=args.json, text="\n".join(lines))
    return 0


def _check(args: argparse.Namespace) -> int:
    from visionloop.lake.checking import Finding, check

    def tell(found: Finding) -> None:
        if args.json:
            return
        mark = "✗" if found.broken else "✓"
        told = f"{found.broken:,} of {found.checked:,}" if found.broken else f"{found.checked:,}"
        print(f"{mark} {found.check}: {told}", flush=True)
        for example in found.examples:
            print(f"    {example}")
        if found.remedy:
            print(f"    {found.remedy.rstrip('.')}.")

    findings = check(_open(args), advance=tell)
    broken = sum(bool(found.broken) for found in findings)
    told = f"{broken} found something broken" if broken else "nothing is broken"
    show(
        {"findings": [asdict(one) | {"state": one.state} for one in findings], "broken": broken},
        as_json=args.json,
        text=f"{len(findings)} checks: {told}",
    )
    return 1 if broken else 0


def _compact(args: argparse.Namespace) -> int:
    from visionloop.lake.compact import compact
    from visionloop.progress import progress

    with progress("compact", unit="tables") as bar:

        def advance(name: str) -> None:
            bar.advance(1)
            bar.note(name)

        done = compact(
            _open(args),
            only=args.table,
            min_files=args.min_files,
            dry_run=args.dry_run,
            advance=advance,
        )
    total = done.total
    verb = "would merge" if done.dry_run else "merged"
    lines = [
        f"{name}: {one.files:,} files into {one.into:,}, {one.rows:,} rows, {_size(one.bytes)}"
        for name, one in done.tables.items()
    ]
    lines.append(
        f"{verb} {total.files:,} small files of {len(done.tables)} tables into {total.into:,}; "
        f"the newest version is {done.version}"
    )
    show(asdict(done) | {"total": asdict(total)}, as_json=args.json, text="\n".join(lines))
    return 0


def _age(where: str, **given: float) -> timedelta:
    try:
        return timedelta(**given)
    except (ValueError, OverflowError) as error:
        raise InputError(
            "an age is a number, and not that large", where=where, remedy="Use 0 or more"
        ) from error


def _vacuum(args: argparse.Namespace) -> int:
    from visionloop.lake.vacuum import vacuum

    done = vacuum(
        _open(args),
        keep_versions=args.keep_versions,
        older_than=None if args.older_than is None else _age("--older-than", days=args.older_than),
        safety=_age("--safety-hours", hours=args.safety_hours),
        dry_run=args.dry_run,
    )
    total = done.total
    verb = "would remove" if done.dry_run else "removed"
    lines = [
        f"{name or 'beside the tables'}: {one.snapshots:,} snapshots, {one.files:,} files, "
        f"{_size(one.bytes)}"
        for name, one in done.tables.items()
        if one.snapshots or one.files
    ]
    lines.append(
        f"{verb} {len(done.dropped):,} versions, {total.snapshots:,} snapshots and {total.files:,} "
        f"files of {_size(total.bytes)}; {len(done.kept):,} versions can be read"
    )
    show(asdict(done) | {"total": asdict(total)}, as_json=args.json, text="\n".join(lines))
    return 0


def _backup(args: argparse.Namespace) -> int:
    from visionloop.lake.backup import backup
    from visionloop.progress import progress

    lake = _open(args)
    with progress("backup", unit="tables and folders") as bar:

        def advance(name: str) -> None:
            bar.advance(1)
            bar.note(name)

        made = backup(lake, absolute(args.destination), events=args.events, advance=advance)
    show(
        {"version": made.version, "files": len(made.files), "bytes": made.size,
         "rows": {name: held["rows"] for name, held in made.tables.items()}},
        as_json=args.json,
        text=f"backed up version {made.version} of {made.loop}: {len(made.tables)} tables, "
        f"{len(made.files):,} files, {_size(made.size)}, each verified",
    )  # fmt: skip
    return 0


def _restore(args: argparse.Namespace) -> int:
    from visionloop.lake.restore import restore
    from visionloop.progress import progress

    config = lake_config(args)
    with progress("restore", unit="steps") as bar:

        def advance(name: str) -> None:
            bar.advance(1)
            bar.note(name)

        lake, made = restore(
            absolute(args.source),
            config.lake,
            catalog=config.catalog,
            loop=config.name if args.config or args.loop else "",
            advance=advance,
        )
    rows = {name: held["rows"] for name, held in made.tables.items()}
    show(
        {"lake": lake.uri, "loop": lake.loop, "version": made.version, "rows": rows},
        as_json=args.json,
        text=f"restored version {made.version} of {made.loop} at {lake.uri}: "
        f"{sum(rows.values()):,} rows in {len(rows)} tables",
    )
    return 0


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
