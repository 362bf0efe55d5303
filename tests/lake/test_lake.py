"""The lake: versions, leftovers, keys, schemas."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from visionloop.errors import InputError, StaleRead, VisionloopError
from visionloop.lake import Lake


def files(*uris: str) -> pa.Table:
    return pa.table({"uri": list(uris), "state": ["ok"] * len(uris)})


def uris(lake: Lake, version: str | None = None) -> list[str]:
    return sorted(lake.read("files", version=version)["uri"].to_pylist())


def test_an_empty_lake_reads_as_empty_tables_with_their_schemas(lake: Lake) -> None:
    assert lake.version() == ""
    assert lake.read("samples").num_rows == 0
    assert "sharpness" in lake.read("samples").column_names
    assert lake.embeddings("nothing")[0] == []
    assert lake.rounds.all() == []


def test_rows_are_visible_from_their_version_on_and_not_before(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        assert uris(lake) == []
        first = run.commit()
    with lake.run(stage="ingest") as run:
        run.append("files", files("b"))
        second = run.commit()
    assert first != second
    assert uris(lake, first) == ["a"]
    assert uris(lake, second) == uris(lake) == ["a", "b"]
    assert lake.version() == second


def test_every_row_carries_its_round_and_run(lake: Lake) -> None:
    opened = lake.rounds.open("run-7")
    with lake.run(stage="ingest", round_id=opened.round_id) as run:
        run.append("files", files("a"))
        run.commit()
    row = lake.read("files").to_pylist()[0]
    assert (row["round_id"], row["run_id"]) == ("0000", "run-7")


def test_a_stage_that_writes_nothing_hands_its_base_version_on(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        version = run.commit()
    with lake.run(stage="monitor", base_version=version) as run:
        assert run.commit(counts={"in": 0}) == version
    assert lake.history()["stage"].to_pylist() == ["ingest", "monitor"]


def test_what_a_failed_run_wrote_is_neither_seen_nor_kept(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        run.commit()
    with pytest.raises(RuntimeError), lake.run(stage="ingest") as run:
        run.append("files", files("lost"))
        run.append("labels", pa.table({"sample_id": ["x"], "label": ["lost"]}))
        raise RuntimeError
    assert uris(lake) == ["a"]
    with lake.run(stage="ingest") as run:
        run.append("files", files("b"))
        run.append("labels", pa.table({"sample_id": ["x"], "label": ["kept"]}))
        run.commit()
    assert uris(lake) == ["a", "b"]
    assert lake.read("labels")["label"].to_pylist() == ["kept"]


def test_a_run_killed_while_it_writes_leaves_the_lake_as_it_was_and_holds_no_lock(
    lake: Lake, tmp_path: Path
) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        before = run.commit()
    ready = tmp_path / "ready"
    program = f"""
        import pathlib, time, pyarrow as pa
        from visionloop.lake import Lake
        lake = Lake.open({lake.uri!r}, loop="test")
        with lake.run(stage="ingest") as run:
            run.append("files", pa.table({{"uri": ["killed"]}}))
            pathlib.Path({str(ready)!r}).touch()
            time.sleep(60)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    deadline = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ready.exists()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert lake.version() == before
    with lake.run(stage="ingest") as run:
        run.append("files", files("b"))
        run.commit()
    assert uris(lake) == ["a", "b"]


def test_replace_puts_rows_in_the_place_of_those_of_the_same_nature(lake: Lake) -> None:
    def picks(round_id: str, *ids: str) -> pa.Table:
        return pa.table({"sample_id": list(ids), "round_id": [round_id] * len(ids)})

    for round_id, ids in (("0000", "ab"), ("0001", "cd"), ("0001", "ef"), ("0001", "ef")):
        with lake.run(stage="select", round_id=round_id) as run:
            run.replace("selections", picks(round_id, *ids), f"round_id == '{round_id}'")
            run.commit()
    assert sorted(lake.read("selections")["sample_id"].to_pylist()) == ["a", "b", "e", "f"]
    with lake.run(stage="select") as run:
        run.replace("selections", picks("0001"), "round_id == '0001'")
        run.commit()
    assert sorted(lake.read("selections")["sample_id"].to_pylist()) == ["a", "b"]


def test_embeddings_come_back_bit_for_bit_in_the_order_of_their_ids(lake: Lake) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((7, 33), dtype=np.float32)
    ids = list("gfedcba")
    with lake.run(stage="infer") as run:
        run.append_embeddings("pixels", ids[:3], vectors[:3])
        run.append_embeddings("pixels", ids[3:], vectors[3:])
        run.commit()
    found, read = lake.embeddings("pixels")
    assert found == sorted(ids)
    assert np.array_equal(read, vectors[::-1])
    assert lake.spaces() == ["pixels"]


def test_embeddings_that_are_not_finite_or_of_another_space_are_refused_by_id(lake: Lake) -> None:
    with lake.run(stage="infer") as run:
        run.append_embeddings("pixels", ["a"], np.ones((1, 4), np.float32))
        run.commit()
    with lake.run(stage="infer") as run, pytest.raises(InputError, match=r"NaN.*samples b"):
        run.append_embeddings("pixels", ["a", "b"], np.array([[0, 0, 0, 1], [0, np.nan, 0, 0]]))
    with lake.run(stage="infer") as run, pytest.raises(InputError, match=r"5 components.* 4"):
        run.append_embeddings("pixels", ["c"], np.ones((1, 5), np.float32))
    assert lake.embeddings("pixels")[0] == ["a"]


def test_metadata_grows_a_typed_column_a_name_and_refuses_a_second_type(lake: Lake) -> None:
    for rows in (
        pa.table({"sample_id": ["a"], "camera": ["north"], "iso": [100.0]}),
        pa.table({"sample_id": ["b"], "flash": [True], "iso": [200.0]}),
    ):
        with lake.run(stage="ingest") as run:
            run.append("metadata", rows)
            run.commit()
    rows = lake.read("metadata").sort_by("sample_id").to_pylist()
    assert [row["iso"] for row in rows] == [100.0, 200.0]
    assert [row["camera"] for row in rows] == ["north", None]
    assert [row["flash"] for row in rows] == [None, True]
    with lake.run(stage="ingest") as run, pytest.raises(InputError, match=r"'iso'.*table metadata"):
        run.append("metadata", pa.table({"sample_id": ["c"], "iso": ["fast"]}))


def test_a_column_or_a_table_that_the_lake_lacks_is_named(lake: Lake) -> None:
    with pytest.raises(InputError, match="no table 'labls'"):
        lake.read("labls")
    with lake.run(stage="ingest") as run, pytest.raises(InputError, match=r"\['colour'\].*files"):
        run.append("files", pa.table({"uri": ["a"], "colour": ["red"]}))
    with pytest.raises(InputError, match="no version 'nope'"):
        lake.read("files", version="nope")


def test_two_loops_share_a_lake_and_see_their_own_rows(lake: Lake) -> None:
    other = Lake.open(lake.uri, loop="other")
    for one, name in ((lake, "a"), (other, "b")):
        with one.run(stage="ingest") as run:
            run.append("files", files(name))
            run.commit()
    assert (uris(lake), uris(other)) == (["a"], ["b"])


def test_a_table_that_is_read_in_batches_is_in_memory_a_file_at_a_time(lake: Lake) -> None:
    rng = np.random.default_rng(0)
    with lake.run(stage="ingest") as run:
        for part in range(8):
            raw = [rng.bytes(500).hex() for _ in range(1000)]
            run.append("metadata", pa.table({"sample_id": [f"{part}-{i}" for i in range(1000)],
                                             "raw": raw, f"key{part}": [1.0] * 1000}))  # fmt: skip
        run.commit()
    del raw
    rows, most, before = 0, 0, pa.total_allocated_bytes()
    for batch in lake.batches("metadata"):
        rows += batch.num_rows
        assert batch.schema.names[-1] == "key7"
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == 8000
    assert most < 4 * 1000 * 1000, "more than four of eight files were in memory"


def test_spark_and_others_can_read_the_same_tables(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        run.commit()
    from pyiceberg.catalog.sql import SqlCatalog

    path = lake.uri.removeprefix("file://")
    plain = SqlCatalog("visionloop", uri=f"sqlite:///{path}/catalog.sqlite", warehouse=lake.uri)
    assert plain.load_table("test.files").scan().to_arrow()["uri"].to_pylist() == ["a"]


def test_a_catalog_that_is_not_a_database_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_text("this is no database at all, but some text\n" * 40)
    with pytest.raises(VisionloopError, match="catalog is not usable: file is not a database"):
        Lake.open(str(tmp_path)).version()


def test_a_bucket_without_a_catalog_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"needs a catalog \(gs://bucket/lake\).*PostgreSQL"):
        Lake.open("gs://bucket/lake")
    with pytest.raises(InputError, match="scheme 's3' is not supported"):
        Lake.open("s3://bucket/lake")


def test_a_password_in_the_catalogs_address_is_not_shown() -> None:
    with pytest.raises(VisionloopError) as caught:
        Lake.open(
            "file:///tmp/nowhere-at-all",
            catalog="postgresql://me:s3cret@127.0.0.1:1/lake",
        ).version()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def test_a_run_that_adds_to_a_table_that_changed_since_it_read_it_is_refused(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        run.commit()
    with lake.run(stage="ingest") as slow:
        known = slow.read("files")["uri"].to_pylist()
        with lake.run(stage="ingest") as quick:
            quick.append("files", files("b"))
            quick.commit()
        assert known == ["a"]
        with pytest.raises(VisionloopError, match="another run wrote the table files"):
            slow.append("files", files("b"))
    assert uris(lake) == ["a", "b"]


def test_a_run_whose_lock_was_lost_makes_nothing_visible(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", files("a"))
        run.commit()
    monkeypatch.setattr("visionloop.lake.run.writer_lock", lambda *_: contextlib.nullcontext())
    with lake.run(stage="ingest") as slow:
        slow.append("labels", pa.table({"sample_id": ["x"], "label": ["lost"]}))
        with lake.run(stage="ingest") as quick:
            quick.append("files", files("b"))
            quick.commit()
        with pytest.raises(StaleRead, match="lock was lost"):
            slow.commit()
    assert uris(lake) == ["a", "b"]
    assert lake.read("labels").num_rows == 0


def test_a_stage_is_run_again_on_what_another_run_has_written(lake: Lake) -> None:
    from visionloop.task import stage

    seen = []

    @stage
    def add() -> None:
        with lake.run(stage="add") as run:
            known = run.read("files")["uri"].to_pylist()
            seen.append(known)
            if len(seen) == 1:  # meanwhile, elsewhere
                with lake.run(stage="ingest") as other:
                    other.append("files", files("theirs"))
                    other.commit()
            run.append("files", files("ours"))
            run.commit()

    add()
    assert seen == [[], ["theirs"]]
    assert uris(lake) == ["ours", "theirs"]


def test_a_rest_catalog_is_refused_because_it_has_no_lock() -> None:
    with pytest.raises(InputError, match=r"no lock.*PostgreSQL"):
        Lake.open("gs://bucket/lake", catalog="https://user:pw@catalog")
