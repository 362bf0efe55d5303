"""The lake of schema version 1 that is kept as a backup: thirteen files, a round that waits.

It was made by the program of that day: twelve digits, copied into the lake, and one broken file
were ingested, embedded and checked, three were selected, and people were asked about six.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from visionloop.lake import Lake
from visionloop.lake.restore import restore

BACKUP = Path(__file__).with_name("fixtures") / "lake_v1"
LOOP = "old"
VERSION = "d57cf85cbae8b030"


def restored(root: Path | str) -> Lake:
    """Restore the lake, and return it as one that has not been opened yet."""
    return restore(str(BACKUP), str(root))[0]


def rows(lake: Lake, version: str | None = None) -> dict[str, list[str]]:
    """Return every row of every table, and every vector, less what a restore changes."""
    named = lake._version(version).tables
    found: dict[str, list[str]] = {}
    for name in named:
        if name.startswith("embeddings_"):
            ids, vectors = lake.embeddings(name.removeprefix("embeddings_"), version=version)
            found[name] = [f"{i} {v.tobytes().hex()}" for i, v in zip(ids, vectors, strict=True)]
        else:
            held = lake.read(name, version=version).to_pylist()
            told = (str(row | ({"holder": ""} if "holder" in row else {})) for row in held)
            found[name] = sorted(text.replace(lake.uri, "LAKE") for text in told)
    return found


def killed(program: str, *arguments: str) -> None:
    """Run a program that must die by its own SIGKILL."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def on_disk(folder: str | Path) -> set[str]:
    """Return the paths of all files under a folder."""
    root = Path(str(folder).removeprefix("file://"))
    return {str(path) for path in root.rglob("*") if path.is_file()}


def make_old(folder: str | Path) -> None:
    """Give every file under a folder a time long past."""
    for path in on_disk(folder):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (1_000_000_000, 1_000_000_000))
