"""Walks a local folder in the order of its files' URIs, and holds little of it at a time."""

from __future__ import annotations

import heapq
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote_to_bytes

# Names of one folder that are sorted in memory; a larger folder is sorted through files.
IN_MEMORY = 100_000


def walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder in the order of their URIs, links followed but for those up.

    Memory holds the names of the folders between the root and the file at hand, of each at most
    `IN_MEMORY`, and two numbers for each folder that was visited.

    Args:
        folder: An absolute path.

    Yields:
        Path and status of each regular file, and of each link that leads nowhere, so that whoever
        reads it finds out and says so.

    Raises:
        OSError: A folder cannot be read. What is removed while it is walked is left out.
    """
    # A link up to a folder above would bring in what is no part of this one.
    above = (os.stat(parent) for parent in Path(os.path.realpath(folder)).parents)
    yield from _below(folder, folder, {(held.st_dev, held.st_ino) for held in above})


def _below(
    root: str, folder: str, visited: set[tuple[int, int]]
) -> Iterator[tuple[str, os.stat_result]]:
    try:
        held = os.stat(folder)
        # A link may lead back up, and a second link to the same folder brings nothing new.
        if (held.st_dev, held.st_ino) in visited:
            return
        visited.add((held.st_dev, held.st_ino))
        names = sorted_names(folder)
    except FileNotFoundError:
        os.stat(root)  # the root itself must be there; a folder below it may have been removed
        return
    for name in names:
        path = os.path.join(folder, os.fsdecode(unquote_to_bytes(name.removesuffix("/"))))
        if name.endswith("/"):
            yield from _below(root, path, visited)
        elif (found := status(path)) is not None:
            yield path, found
        else:
            os.stat(root)


def sorted_names(folder: str) -> Iterator[str]:
    """Return the names in a folder, quoted as in a URI and in its order; folders end with ``/``.

    The slash counts: all that lies below ``a`` comes after ``a.png``, since ``a/`` does.

    Raises:
        OSError: The folder cannot be read.
    """
    with os.scandir(folder) as listing:
        names = (_quoted(entry) for entry in listing)
        first = sorted(islice(names, IN_MEMORY))
        if len(first) < IN_MEMORY:
            return iter(first)
        runs = [_spilled(first)]
        while run := sorted(islice(names, IN_MEMORY)):
            runs.append(_spilled(run))
    return heapq.merge(*(_names_of(run) for run in runs))


def _quoted(entry: os.DirEntry[str]) -> str:
    try:
        is_folder = entry.is_dir()
    except OSError:
        is_folder = False
    return quote(os.fsencode(entry.name)) + ("/" if is_folder else "")


def _spilled(names: Iterable[str]) -> IO[str]:
    # A quoted name holds no line break.
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - its reader closes it
    file.writelines(f"{name}\n" for name in names)
    file.seek(0)
    return file


def _names_of(run: IO[str]) -> Iterator[str]:
    with run:
        for line in run:
            yield line.removesuffix("\n")


def status(path: str) -> os.stat_result | None:
    """Return the status of a file to list, None for one that is gone or no file at all."""
    try:
        held = os.stat(path)
    except FileNotFoundError:
        try:
            held = os.lstat(path)
        except FileNotFoundError:
            return None
    if not (stat.S_ISREG(held.st_mode) or stat.S_ISLNK(held.st_mode)):
        return None  # reading a pipe or a device would never end
    return held
