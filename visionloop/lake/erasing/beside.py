"""Removes what tells of erased samples from the files beside a lake's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.lake.erasing.scanning import Scanner
from visionloop.lake.erasing.traces import Traces
from visionloop.lake.identity import is_sample
from visionloop.lake.migration import loop_tables
from visionloop.lake.storage import (
    INSIDE,
    FileInfo,
    StorageError,
    name_of,
    normalise,
    open_storage,
    relative,
    scheme_of,
)
from visionloop.lake.vacuum import place

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

JOURNAL = "erasing.json"
# Pages with pictures, one of each loop, which its next round writes anew.
REPORTS = "reports"
# Where an earlier visionloop left one page for all loops of a lake; no stage writes it anew.
OLD_REPORT = "report.html"
# What one file of these names concerns all of them: they are made again as one.
_WHOLE = {"shards": 2, "training": 3}
# One sample a line.
_LINES = frozenset({"label_requests", "imports"})
_SINGLE = frozenset({"failures", "media", "outbox", "tmp"})
# What lies here is made again where it is missing.
_PASSING = frozenset({"shards", "tmp"})


@dataclass
class Beside:
    """What was done to the files beside the tables.

    Attributes:
        removed: Places of files that were removed, below the lake's root.
        rewritten: Places of files that lost lines.
        bytes: Size of what was removed.
    """

    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    bytes: int = 0


def files_beside(lakes: Sequence[Lake]) -> Iterator[FileInfo]:
    """Yield every file below a lake's root that belongs to no table."""
    roots = [
        _folder(table.location())
        for lake in lakes
        for _, table in loop_tables(lake.catalog, lake.loop)
    ]
    for info in lakes[0].storage.list(lakes[0].uri):
        if not info.uri.startswith(tuple(roots)):
            yield info


def _folder(location: str) -> str:
    if scheme_of(location) == "file":
        return normalise(place(location)) + "/"
    return location.rstrip("/") + "/"


def clear(
    lakes: Sequence[Lake],
    scanner: Scanner,
    *,
    events: str,
    dry_run: bool = False,
    advance: Callable[[int], None] = lambda size: None,
) -> Beside:
    """Remove files with traces, and lines of those that hold other things as well.

    Args:
        lakes: Every loop of the lake.
        scanner: What looks into files.
        events: Where logged events lie: they are seen to elsewhere.
        dry_run: Only tell what would be done.
        advance: Called with the size of each file that was read.
    """
    lake, done = lakes[0], Beside()
    whole: set[str] = set()
    every = list(files_beside(lakes))
    for info in every:
        path = relative(lake.uri, info.uri)
        folder = path.partition("/")[0] if "/" in path else ""
        if path == JOURNAL or info.uri.startswith(f"{events}/"):
            continue
        if folder == REPORTS or path == OLD_REPORT:
            _delete(lake, info, done, dry_run)
            continue
        undecoded = len(scanner.undecoded)
        found = _scan(lake, scanner, info)
        advance(info.size)
        hidden = name_of(info.uri).startswith(".")
        if len(scanner.undecoded) > undecoded and (hidden or folder in _PASSING):
            # A kill tore it: nobody can use it, or tell what it holds.
            _delete(lake, info, done, dry_run)
            continue
        if not found:
            continue
        if folder in _WHOLE:
            whole.add("/".join(path.split("/")[: _WHOLE[folder]]) + "/")
        elif folder in _LINES and not hidden:
            if not dry_run:
                _drop_lines(lake, info, scanner.traces)
            done.rewritten.append(path)
        elif folder in _SINGLE or hidden:
            _delete(lake, info, done, dry_run)
    for info in every:
        if relative(lake.uri, info.uri).startswith(tuple(whole)):
            _delete(lake, info, done, dry_run)
    return done


def _scan(lake: Lake, scanner: Scanner, info: FileInfo) -> set[str]:
    try:
        return scanner.file(lake.storage, info)
    except StorageError:
        if lake.storage.exists(info.uri):
            raise
        return set()  # removed meanwhile


def _delete(lake: Lake, info: FileInfo, done: Beside, dry_run: bool) -> None:
    if not dry_run:
        lake.storage.delete(info.uri)
    done.removed.append(relative(lake.uri, info.uri))
    done.bytes += info.size


def _drop_lines(lake: Lake, info: FileInfo, traces: Traces) -> None:
    text = lake.storage.read(info.uri).decode("utf-8", "surrogateescape")
    kept = [line for line in text.splitlines(keepends=True) if not traces.in_text(line)]
    lake.storage.write(info.uri, "".join(kept).encode("utf-8", "surrogateescape"))


def originals(
    held: Iterable[tuple[str, Iterable[str]]], *, delete: bool
) -> tuple[list[str], dict[str, str]]:
    """Return which originals were deleted, and of the others why they were not.

    Args:
        held: URIs outside of the lake, each with the samples that were found there.
        delete: Delete those whose bytes are still the sample's.
    """
    deleted: list[str] = []
    left: dict[str, str] = {}
    for uri, samples in sorted(held):
        if INSIDE in uri:
            left[uri] = "inside a file that holds others as well"
            continue
        try:
            storage = open_storage(uri)
            if not storage.exists(uri):
                left[uri] = "not there any more"
            elif not delete:
                left[uri] = "not the lake's: deleted with --delete-source alone"
            elif any(is_sample(one, storage.read(uri)) for one in samples):
                storage.delete(uri)
                deleted.append(uri)
            else:
                left[uri] = "holds other bytes now"
        except StorageError as error:
            left[uri] = f"out of reach: {error.what}"
    return deleted, left
