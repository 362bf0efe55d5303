"""Events as they came, on their way to be reduced to hashes: a private folder of short segments.

A record is two lengths (big-endian, 32 bits), then the headers as JSON, then the body, untouched:
to write it costs one copy of the body and nothing else. The folder is 0700 and its files are 0600,
since they hold pixels; each is deleted as soon as its events are reduced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from visionloop.errors import VisionloopError
from visionloop.serving.segment_writer import make_folder

SUFFIX = ".raw"
FOLDER = ".raw"
MODE = 0o600

# A segment is begun anew this often, because only a closed one is reduced.
SECONDS = 0.25
BYTES = 8 * 1024 * 1024

# So often a reducer may die over a segment until its requests are no longer looked into.
_ATTEMPTS = 5

_NAME = re.compile(r"\.raw(\.\d+)?$")
_LENGTHS = struct.Struct(">II")


def pack(head: dict[str, Any], parts: Sequence[bytes]) -> list[bytes]:
    """Return a record, in pieces: the body's are not copied.

    Args:
        head: Time and headers.
        parts: The body, in the pieces that it came in.
    """
    packed = orjson.dumps(head)
    lengths = _LENGTHS.pack(len(packed), sum(len(part) for part in parts))
    return [lengths + packed, *parts]


def unpack(data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the records of a segment as (time and headers, body).

    A last record that was cut is left out: it was never acknowledged.
    """
    position = 0
    while position + _LENGTHS.size <= len(data):
        head, body = _LENGTHS.unpack_from(data, position)
        begin = position + _LENGTHS.size
        position = begin + head + body
        if position > len(data):
            return
        yield orjson.loads(data[begin : begin + head]), data[begin + head : position]


def make_private(folder: Path, *, durable: bool = False) -> Path:
    """Make a folder that nobody else may look into.

    Args:
        folder: The folder.
        durable: Its name shall survive a power cut.

    Raises:
        VisionloopError: It cannot be made, or belongs to somebody else.
    """
    try:
        make_folder(folder, durable=durable, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise VisionloopError(
            f"cannot make a private folder: {error.strerror}",
            where=str(folder),
            remedy="Check the free space and the rights, or name another folder with --spool",
        ) from error
    return folder


def segments(folder: Path) -> list[Path]:
    """Return the segments of a folder, the oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}*") if _NAME.search(path.name))


def size_of(folder: Path) -> int:
    """Return how many bytes wait in a spool."""
    return size_under(folder, f"*{SUFFIX}*")


def size_under(folder: Path, pattern: str) -> int:
    """Return how many bytes the files of a folder hold whose names fit a pattern."""
    size = 0
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # reduced or uploaded meanwhile
            size += path.stat().st_size
    return size


@dataclass
class Claim:
    """A closed segment that is this process's to reduce.

    Attributes:
        path: Where it lies.
        data: What it holds.
        hopeless: Whether reducers died over it: then nothing in it shall be decoded.
    """

    path: Path
    data: bytes
    hopeless: bool


@contextlib.contextmanager
def claim(path: Path) -> Iterator[Claim | None]:
    """Take a segment; None where its writer or another reducer holds it.

    The attempt is counted in the file's name, so that an event which kills its reader, for want of
    memory for example, is not read again forever.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        stem, _, tried = path.name.rpartition(SUFFIX)
        attempt = int(tried.removeprefix(".") or 0) + 1
        held = path.with_name(f"{stem}{SUFFIX}.{attempt}")
        try:
            path.rename(held)
        except FileNotFoundError:  # another reducer was done with it before the lock was ours
            yield None
            return
        with open(file, "rb", closefd=False) as stream:
            yield Claim(held, stream.read(), attempt > _ATTEMPTS)
    finally:
        os.close(file)


def wait_until_reduced(events: Path, seconds: float) -> int:
    """Wait until what lies in the spool of a folder of events now is reduced.

    Args:
        events: The folder.
        seconds: How long at most.

    Returns:
        How many segments are left: there is no collector, or it is behind.
    """
    waiting = {path.name.rpartition(SUFFIX)[0] for path in segments(events / FOLDER)}
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(0.05)
        waiting &= {path.name.rpartition(SUFFIX)[0] for path in segments(events / FOLDER)}
    return len(waiting)
