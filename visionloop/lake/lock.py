"""The writer's lock: one process at a time writes a loop's tables.

It is held from a stage's first write to its version row, never while a stage computes. Each kind
below is freed by the operating system or the database when its holder dies, so that nothing has to
wait for a lease to expire after a ``kill -9``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from visionloop.errors import VisionloopError
from visionloop.lake.catalog import sqlite_file

TIMEOUT_SECONDS = 600.0


class LakeBusy(VisionloopError):
    """Another process held the writer's lock for all the time that was waited."""


@contextlib.contextmanager
def writer_lock(catalog_uri: str, loop: str, *, timeout: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Hold the writer's lock of a loop.

    Args:
        catalog_uri: The lake's catalog: beside a SQLite file the lock is a file (``flock``), in
            PostgreSQL an advisory lock of a session.
        loop: Name of the loop.
        timeout: Seconds to wait for another writer.

    Raises:
        LakeBusy: Another process held the lock for all of that time.
    """
    if database := sqlite_file(catalog_uri):
        holder = _file_lock(database.with_name(f".{loop}.lock"), timeout)
    else:
        holder = _advisory_lock(catalog_uri, loop, timeout)
    with holder:
        yield


def _busy(loop: str, timeout: float) -> LakeBusy:
    return LakeBusy(
        f"another process has been writing the loop {loop!r} for {timeout:.0f} s",
        where=loop,
        remedy="Wait for it to end, or stop it, and run this again; nothing was written",
    )


@contextlib.contextmanager
def _file_lock(path: Path, timeout: float) -> Iterator[None]:
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _busy(path.name.strip(".").removesuffix(".lock"), timeout) from None
                time.sleep(0.05)
        yield


@contextlib.contextmanager
def _advisory_lock(uri: str, loop: str, timeout: float) -> Iterator[None]:
    import sqlalchemy

    key = int.from_bytes(hashlib.sha256(f"visionloop/{loop}".encode()).digest()[:8], signed=True)
    # Without a transaction: a server may end one that idles, and the lock with it.
    engine = sqlalchemy.create_engine(
        uri, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
    )
    deadline = time.monotonic() + timeout
    with engine.connect() as connection:
        take = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)")
        while not connection.execute(take, {"key": key}).scalar():
            if time.monotonic() > deadline:
                raise _busy(loop, timeout)
            time.sleep(0.1)
        yield
