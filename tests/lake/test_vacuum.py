"""A vacuum removes what no kept version needs, and nothing else, wherever it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.lake.old_lake import killed, make_old, on_disk, rows
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.vacuum import vacuum

NOW = timedelta(0)


def fill(lake: Lake, times: int = 4) -> list[str]:
    """Commit versions, each of which adds a file and rewrites the round's picks."""
    made = []
    for i in range(times):
        with lake.run(stage="ingest") as run:
            run.append("files", pa.table({"uri": [f"u{i}"], "state": ["skipped"]}))
            run.replace("decisions", pa.table({"subject": [f"s{i}"]}), "round_id == '0000'")
            made.append(run.commit())
    return made


def abandon(lake: Lake) -> None:
    """Do what a run does that dies: write, and record no version."""
    with pytest.raises(RuntimeError), lake.run(stage="ingest") as run:
        run.append("files", pa.table({"uri": ["lost"]}))
        run.append("labels", pa.table({"sample_id": ["lost"]}))
        raise RuntimeError


def test_kept_versions_read_as_before_and_older_ones_say_what_became_of_them(lake: Lake) -> None:
    made = fill(lake)
    before = {version: rows(lake, version) for version in made}
    there = on_disk(lake.uri)
    done = vacuum(lake, keep_versions=2, safety=NOW)
    assert (done.kept, done.dropped) == (made[2:], made[:2])
    assert {version: rows(lake, version) for version in made[2:]} == {
        version: before[version] for version in made[2:]
    }
    for version in made[:2]:
        with pytest.raises(InputError, match=f"rows of version {version} are gone: a vacuum"):
            lake.read("files", version=version)
    gone = there - on_disk(lake.uri)
    assert done.total.files == len(gone) > 0
    assert done.total.bytes > 0 and done.total.snapshots > 0
    assert vacuum(lake, keep_versions=2, safety=NOW).total.files == 0
    assert not [found for found in check(lake) if found.broken]
    fill(lake, 1)
    assert lake.read("files").num_rows == 5


def test_nothing_is_removed_that_is_younger_than_the_safety_age(lake: Lake) -> None:
    made = fill(lake)
    abandon(lake)
    data = next(Path(path) for path in on_disk(lake.uri) if "/files/data/" in path)
    stray = data.with_name("written-by-a-run-that-was-killed-before-it-committed.parquet")
    stray.write_bytes(data.read_bytes())
    there = on_disk(lake.uri)
    done = vacuum(lake, keep_versions=1)
    assert done.kept == made and done.total.files == done.total.snapshots == 0
    assert on_disk(lake.uri) == there
    os.utime(stray, (1_000_000_000, 1_000_000_000))
    assert vacuum(lake, keep_versions=1).total.files == 1 and not stray.exists()


def test_what_killed_runs_left_goes_and_every_version_stays(lake: Lake) -> None:
    made = fill(lake)
    before = [rows(lake, version) for version in made]
    for _ in range(2):
        abandon(lake)
    Path(lake.uri.removeprefix("file://"), "models", "m").mkdir(parents=True)
    left = Path(lake.uri.removeprefix("file://"), "models", "m", ".card.json.a1b2c3d4")
    left.write_text("half")
    kept = left.with_name("card.json")
    kept.write_text("whole")
    make_old(lake.uri)
    done = vacuum(lake, safety=NOW)
    assert done.kept == made and not done.dropped
    assert done.tables["labels"].files > 0 and done.tables[""].files == 1
    assert kept.exists() and not left.exists()
    assert [rows(lake, version) for version in made] == before
    labels = [path for path in on_disk(lake.uri) if "/labels/data/" in path]
    assert labels == []


def test_a_dry_run_tells_what_would_go_and_removes_nothing(lake: Lake) -> None:
    fill(lake)
    abandon(lake)
    there = on_disk(lake.uri)
    told = vacuum(lake, keep_versions=1, safety=NOW, dry_run=True)
    assert on_disk(lake.uri) == there
    done = vacuum(lake, keep_versions=1, safety=NOW)
    assert (told.kept, told.dropped, told.total) == (done.kept, done.dropped, done.total)
    assert done.total.files > 0


def test_versions_that_the_open_round_reads_at_are_kept(lake: Lake) -> None:
    first = fill(lake, 1)[0]
    opened = lake.rounds.open("run")
    for i in range(3):
        with lake.run(stage="ingest", round_id=opened.round_id) as run:
            run.append("files", pa.table({"uri": [f"r{i}"]}))
            run.commit()
    done = vacuum(lake, keep_versions=1, safety=NOW)
    assert len(done.kept) == 5 and first in done.kept  # the round was opened at the first one


def test_versions_are_dropped_by_how_long_ago_they_were_replaced(lake: Lake) -> None:
    made = fill(lake)
    assert vacuum(lake, older_than=timedelta(days=1), safety=NOW).kept == made
    assert vacuum(lake, older_than=NOW, safety=NOW).kept == made[-1:]
    with pytest.raises(InputError, match="at least the newest version is kept"):
        vacuum(lake, keep_versions=0)


def test_the_other_loops_of_a_lake_are_left_alone(lake: Lake) -> None:
    other = Lake.open(lake.uri, loop="other")
    made = fill(other)
    before = [rows(other, version) for version in made]
    fill(lake)
    vacuum(lake, keep_versions=1, safety=NOW)
    assert [rows(other, version) for version in made] == before


@pytest.mark.parametrize("deletes", [0, 1, 9])
def test_a_vacuum_that_is_killed_leaves_every_kept_version_and_the_next_one_ends_it(
    lake: Lake, tmp_path: Path, deletes: int
) -> None:
    made = fill(lake)
    before = rows(lake)
    killed(
        """
        import os, signal, sys
        from datetime import timedelta
        from visionloop.lake import Lake
        from visionloop.lake.storage import FileStorage
        from visionloop.lake.vacuum import vacuum

        delete, left = FileStorage.delete, int(sys.argv[2])

        def dying(self, uri):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            delete(self, uri)

        FileStorage.delete = dying
        vacuum(Lake.open(sys.argv[1], loop="test"), keep_versions=1, safety=timedelta(0))
        """,
        lake.uri,
        str(deletes),
    )
    assert lake.version() == made[-1] and rows(lake) == before
    assert not [found for found in check(lake) if found.broken]
    vacuum(lake, keep_versions=1, safety=NOW)
    assert rows(lake) == before
    assert vacuum(lake, safety=NOW).total.files == 0
    names = sum("/data/" in path for path in on_disk(lake.uri))
    assert names == 4 + 1 + 4  # a data file for each file and stage run, one for the decisions


def test_a_writer_beside_it_loses_nothing(lake: Lake) -> None:
    fill(lake, 1)
    program = """
        import sys, pyarrow as pa
        from visionloop.lake import Lake
        lake = Lake.open(sys.argv[1], loop="test")
        for i in range(3):
            with lake.run(stage="ingest") as run:
                run.append("files", pa.table({"uri": [f"w{i}"], "state": ["skipped"]}))
                run.commit()
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), lake.uri])
    while writer.poll() is None:
        vacuum(lake, keep_versions=1, safety=NOW)
        time.sleep(0.2)  # the writer waits for the lock, and asks for it now and then
    assert writer.returncode == 0
    vacuum(lake, keep_versions=1, safety=NOW)
    assert sorted(lake.read("files")["uri"].to_pylist()) == ["u0", *(f"w{i}" for i in range(3))]
    assert not [found for found in check(lake) if found.broken]


def test_a_table_that_lacks_a_file_is_not_touched(lake: Lake) -> None:
    fill(lake)
    lost = next(path for path in sorted(on_disk(lake.uri)) if "/files/data/" in path)
    os.remove(lost)
    there = {path for path in on_disk(lake.uri) if "/files/data/" in path}
    with pytest.raises(VisionloopError, match=f"files lacks 1 files .*{Path(lost).name}"):
        vacuum(lake, keep_versions=1, safety=NOW)
    assert {path for path in on_disk(lake.uri) if "/files/data/" in path} == there
