"""A compaction merges files and changes no row, whoever reads, writes or kills beside it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from tests.lake.old_lake import killed, on_disk, rows
from tests.lake.writers import count, processes
from visionloop.errors import InputError
from visionloop.lake import Lake, compact, status, vacuum
from visionloop.lake.checking import check

NOW = timedelta(0)


def fill(lake: Lake, versions: int = 3, *, others: bool = False) -> list[str]:
    """Commit versions that add three files to `files`, and to the other tables."""
    made = []
    for version in range(versions):
        with lake.run(stage="ingest") as run:
            for i in range(3 * version, 3 * version + 3):
                run.append("files", pa.table({"uri": [f"u{i}", f"v{i}"], "state": ["skipped"] * 2}))
                if not others:
                    continue
                # Each sidecar brings a column of its own, and boxes are nested.
                run.append("metadata", pa.table({"sample_id": [f"m{i}"], f"key{i}": [float(i)]}))
                box = {"x_min": 1.0, "label": f"l{i}", "scores": [0.5, i / 10]}
                rows = [{"sample_id": f"m{i}", "boxes": [box]}]
                run.append("labels", pa.Table.from_pylist(rows))
                vector = np.full((1, 4), 0.5, np.float32) * (-1) ** i
                run.append_embeddings("s", [f"e{i}"], vector)
            made.append(run.commit())
    return made


def counted(lake: Lake) -> dict[str, int]:
    """Return the number of data files of each table in the newest version."""
    newest = lake._version(None).tables
    found = {}
    for name in [*newest, "stage_runs"]:
        table = lake.table(name)
        assert table is not None
        found[name] = len(list(table.scan(snapshot_id=newest.get(name)).plan_files()))
    return found


def test_rows_stay_to_the_last_in_one_file_a_table_and_older_versions_still_read(
    lake: Lake,
) -> None:
    made = fill(lake, others=True)
    before = {version: rows(lake, version) for version in made}
    done = compact.compact(lake, min_files=3)
    assert done.version == lake.version() != made[-1]
    assert {name: (one.files, one.into) for name, one in done.tables.items()} == dict.fromkeys(
        ["files", "metadata", "labels", "embeddings_s"], (9, 1)
    ) | {"stage_runs": (3, 1)}
    assert done.total.rows == 9 * 5 + 3
    assert counted(lake) == {"files": 1, "metadata": 1, "labels": 1, "embeddings_s": 1,
                             "stage_runs": 2}  # fmt: skip
    assert rows(lake) == before[made[-1]]
    assert {version: rows(lake, version) for version in made} == before
    assert lake.history()["stage"].to_pylist() == ["ingest"] * 3 + ["compact"]
    fill(lake, 1)
    assert lake.read("files").num_rows == 24
    assert rows(lake, done.version) == before[made[-1]]
    assert compact.compact(lake).tables == {}


def test_a_vacuum_then_removes_what_was_merged_and_nothing_else(lake: Lake) -> None:
    fill(lake)
    before = rows(lake)
    version = compact.compact(lake).version
    done = vacuum.vacuum(lake, keep_versions=1, safety=NOW)
    assert done.kept == [version]
    assert rows(lake) == before and lake.history().num_rows == 4
    data = [path for path in on_disk(lake.uri) if "/data/" in path]
    assert len(data) == sum(counted(lake).values()) == 5


def test_the_status_advises_a_compaction_of_many_small_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    assert status.status(lake)["fragmented"] == []
    monkeypatch.setattr(status, "MANY_FILES", 9)
    assert status.status(lake)["fragmented"] == ["files"]
    compact.compact(lake)
    assert status.status(lake)["fragmented"] == []


def test_a_dry_run_tells_the_same_and_does_nothing(lake: Lake) -> None:
    fill(lake)
    there, version = on_disk(lake.uri), lake.version()
    told = compact.compact(lake, dry_run=True)
    assert (on_disk(lake.uri), lake.version()) == (there, version)
    assert told.tables == compact.compact(lake).tables


def test_tables_with_few_small_files_and_large_files_are_left_alone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, 1)
    assert compact.compact(lake).tables == {}
    assert set(compact.compact(lake, min_files=3, only=["files"]).tables) == {"files"}
    monkeypatch.setattr(compact, "SMALL_BYTES", 1)
    assert compact.compact(lake, min_files=2).tables == {}
    with pytest.raises(InputError, match="no table 'fils'"):
        compact.compact(lake, only=["fils"])
    with pytest.raises(InputError, match="single file cannot be merged"):
        compact.compact(lake, min_files=1)


def test_files_are_merged_up_to_a_size(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake)
    before = rows(lake)
    table = lake.table("files")
    assert table is not None
    size = max(task.file.file_size_in_bytes for task in table.scan().plan_files())
    monkeypatch.setattr(compact, "MERGED_BYTES", 3 * size)
    assert compact.compact(lake, only=["files"]).tables["files"].into == 3
    assert rows(lake) == before


def test_a_stage_that_had_begun_to_read_goes_on(lake: Lake) -> None:
    fill(lake)
    with lake.run(stage="ingest") as slow:
        assert slow.read("files").num_rows == 18
        compact.compact(lake)
        slow.append("files", pa.table({"uri": ["late"], "state": ["skipped"]}))
        slow.commit()
    assert lake.read("files").num_rows == 19
    assert not [found for found in check(lake) if found.broken and "versions" in found.check]


@pytest.mark.parametrize("commits", [0, 1])
def test_a_compaction_that_is_killed_has_done_nothing_and_can_be_run_again(
    lake: Lake, commits: int
) -> None:
    made = fill(lake)
    before = rows(lake)
    killed(
        """
        import os, signal, sys
        from visionloop.lake import Lake, compact, data_files

        commit, left = data_files.commit, int(sys.argv[2])

        def dying(*arguments, **named):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            commit(*arguments, **named)
            if left == 0 and commits == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        commits = left
        data_files.commit = dying
        compact.compact(Lake.open(sys.argv[1], loop="test"))
        """,
        lake.uri,
        str(commits),
    )
    assert lake.version() == made[-1] and rows(lake) == before
    compact.compact(lake)
    assert rows(lake) == before and counted(lake)["files"] == 1
    vacuum.vacuum(lake, keep_versions=1, safety=NOW)
    assert rows(lake) == before


def test_compactions_beside_writers_and_readers_lose_and_double_nothing(lake: Lake) -> None:
    fill(lake, 2)
    writers = [
        processes.Process(target=count, args=(lake.uri, "", writer, 4)) for writer in range(2)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        compact.compact(lake, min_files=2, only=["files", "stage_runs"])
        version = lake.version()
        held = lake.read("files", version=version)["uri"].to_pylist()
        assert len(held) == len(set(held)) >= 12
        assert sorted(lake.read("files", version=version)["uri"].to_pylist()) == sorted(held)
    assert [writer.exitcode for writer in writers] == [0, 0]
    expected = {f"{letter}{i}" for letter in "uv" for i in range(6)}
    expected |= {f"{writer}-{i}" for writer in range(2) for i in range(4)}
    assert sorted(lake.read("files")["uri"].to_pylist()) == sorted(expected)
    assert lake.read("decisions")["outcome"].to_pylist() == ["8"]
    sequences = lake.history()["sequence"].to_pylist()
    assert sequences == list(range(len(sequences)))
