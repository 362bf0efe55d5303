"""What writes, carries and watches segments goes on where the disk fails in odd places."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.serving.test_collector import lines
from visionloop.serving import raw_spool
from visionloop.serving.pixels import Pixels
from visionloop.serving.reducing import reduce_folder
from visionloop.serving.room import Limits, Room
from visionloop.serving.segment_writer import SegmentWriter


def written(writer: SegmentWriter, line: bytes) -> bool:
    """Write a line, and wait."""
    results: list[bool] = []
    done = threading.Event()

    def note(ok: bool) -> None:
        results.append(ok)
        done.set()

    writer.write([line + b"\n"], note)
    assert done.wait(10), "the writer hangs"
    return results[0]


def test_a_segment_that_cannot_be_closed_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    writer = SegmentWriter(tmp_path, max_bytes=5, closed=closed.append)
    close = os.close

    def broken(file: int) -> None:
        close(file)  # as Linux does, whatever it returns
        if threading.current_thread().name == "segments":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", broken)
    assert written(writer, b'{"n": 1}')
    assert written(writer, b'{"n": 2}')
    writer.close()
    assert [line["n"] for line in lines(tmp_path)] == [1, 2]
    assert len(closed) == 2
    assert writer.written.error == ""  # both are safe


def test_a_segment_that_gets_no_name_fails_its_lines_and_no_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, max_bytes=20)
    assert written(writer, b'{"first": "%s"}' % (b"x" * 100))
    rename, failures = Path.rename, [1]

    def broken(self: Path, target: Any) -> Path:
        if failures and not str(target).endswith(".part"):
            failures.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    assert not written(writer, b'{"second": 2}')
    assert str(tmp_path) in writer.written.error
    assert written(writer, b'{"third": 3}')
    writer.close()
    # Hidden ones too: the next writer on the folder would give them a name.
    text = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert text == b'{"first": "%s"}\n{"third": 3}\n' % (b"x" * 100)


def test_a_client_whose_loop_is_gone_stops_nobody(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)

    def gone(_: bool) -> None:
        raise RuntimeError("Event loop is closed")

    writer.write([b'{"n": 1}\n'], gone)
    assert written(writer, b'{"n": 2}')
    writer.close()
    assert [line["n"] for line in lines(tmp_path)] == [1, 2]


def test_segments_are_not_for_everybody_and_the_names_of_new_folders_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    folder = tmp_path / "lake" / "events"
    writer = SegmentWriter(folder, durable=True)
    assert written(writer, json.dumps({"n": 1}).encode())
    writer.close()
    assert {str(tmp_path), str(tmp_path / "lake"), str(folder)} <= set(synced)
    (path,) = folder.glob("*.events.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_a_spooled_segment_that_cannot_be_read_keeps_no_other_waiting(tmp_path: Path) -> None:
    raw = raw_spool.make_private(tmp_path / ".raw")
    (raw / "1.raw").mkdir()
    record = raw_spool.pack({"received_at": "", "headers": {"ce-id": "a"}}, [b"x"])
    (raw / "2.raw").write_bytes(b"".join(record))
    writer = SegmentWriter(tmp_path)
    assert reduce_folder(raw, writer, Pixels(0.0))
    writer.close()
    assert [line["headers"]["ce-id"] for line in lines(tmp_path)] == ["a"]
    assert [path.is_dir() for path in raw.iterdir()] == [True]


def test_a_disk_that_cannot_be_looked_at_for_a_while_is_looked_at_again(tmp_path: Path) -> None:
    looks: list[int] = []
    seen = threading.Event()

    def waiting() -> int:
        looks.append(1)
        if len(looks) in (1, 3):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if len(looks) > 4:
            seen.set()
        return 1000 * len(looks)

    room = Room(Limits(), tmp_path, waiting)
    try:
        assert room.free > 0
        assert seen.wait(10), "it is not looked at again"
    finally:
        room.close()
    assert room.waiting >= 5000
