"""Embeddings: read where they lie, and read the same whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visionloop.errors import InputError
from visionloop.lake import Lake, tables, vector_files

Floats = Any
D = 8


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "GROUP_ROWS", 64)
    monkeypatch.setattr(vector_files, "FILE_BYTES", 64 * 4 * D * 3)  # three groups a file


def made(n: int, seed: int = 0) -> tuple[list[str], Floats]:
    rng = np.random.default_rng(seed)
    ids = [f"{value:016x}" for value in rng.permutation(n) + 1_000_000 * seed]
    return ids, rng.standard_normal((n, D), dtype=np.float32)


def store(lake: Lake, ids: list[str], vectors: Floats, *, anew: bool = False) -> str:
    with lake.run(stage="infer") as run:
        run.append_embeddings("s", ids, vectors, anew=anew)
        return run.commit()


def expect(lake: Lake, wanted: dict[str, Floats], version: str | None = None) -> None:
    ids, vectors = lake.embeddings("s", version=version)
    assert ids == sorted(wanted)
    assert np.array_equal(vectors, np.array([wanted[name] for name in ids]))
    held = {
        name: row
        for names, block in lake.embedding_blocks("s", version=version)
        for name, row in zip(names.to_pylist(), block, strict=True)
    }
    assert held.keys() == wanted.keys()
    assert all(np.array_equal(held[name], wanted[name]) for name in wanted)


def parquet(lake: Lake) -> list[Path]:
    table = lake.table("embeddings_s")
    assert table is not None
    found = [task.file.file_path for task in table.scan().plan_files()]
    return sorted(Path(path.removeprefix("file://")) for path in found)


def mapped(lake: Lake) -> list[bool]:
    """Tell of each file of the newest snapshot whether it is read where it lies."""
    table = lake.table("embeddings_s")
    assert table is not None
    tasks = table.scan().plan_files()
    return [vector_files._VectorFile.open(table, task) is not None for task in tasks]


@pytest.mark.parametrize("n", [1, 63, 64, 65, 192, 193, 500])
def test_vectors_come_back_bit_for_bit_however_they_fill_groups_and_files(
    lake: Lake, n: int
) -> None:
    ids, vectors = made(n)
    store(lake, ids, vectors)
    expect(lake, dict(zip(ids, vectors, strict=True)))
    assert mapped(lake) == [True] * -(-n // 192)
    for _, block in lake.embedding_blocks("s"):
        assert block.flags.aligned and len(block) <= 64


def test_real_groups_are_one_page_each_so_that_a_row_is_found_by_its_number(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ids, vectors = made(40_000)
    store(lake, ids, vectors)
    assert mapped(lake) == [True]
    expect(lake, dict(zip(ids, vectors, strict=True)))


def test_some_samples_are_read_without_the_others_in_the_order_of_their_ids(lake: Lake) -> None:
    ids, vectors = made(500)
    other, more = made(100, seed=1)
    store(lake, ids, vectors)
    store(lake, other, more)
    held = dict(zip(ids + other, np.concatenate([vectors, more]), strict=True))
    wanted = [ids[3], other[7], "nobody", ids[499], ids[200]]
    found, read = lake.embeddings("s", wanted)
    assert found == sorted(set(wanted) - {"nobody"})
    assert np.array_equal(read, np.array([held[name] for name in found]))
    assert lake.embeddings("s", ["nobody"])[1].shape == (0, D)
    assert lake.embeddings("s", [])[0] == []


def test_a_file_that_another_engine_wrote_reads_the_same(lake: Lake) -> None:
    ids, vectors = made(100)
    store(lake, ids, vectors)
    table = lake.table("embeddings_s")
    assert table is not None
    more_ids, more = made(150, seed=2)
    column = [row.tobytes() for row in more]
    column[5] = None  # somebody's null: a sample without a vector
    rows = pa.table({"sample_id": more_ids, "vector": pa.array(column, pa.binary(4 * D))})
    table.append(tables.conform("embeddings_s", rows, table))
    with lake.run(stage="infer") as run:  # a version that names what it appended
        run._begin()
        run._written["embeddings_s"] = table
        run.commit()
    assert sorted(mapped(lake)) == [False, True]
    expected = dict(zip(ids + more_ids, np.concatenate([vectors, more]), strict=True))
    del expected[more_ids[5]]
    expect(lake, expected)
    assert lake.embeddings("s", [more_ids[5], more_ids[6], ids[0]])[0] == sorted(
        [more_ids[6], ids[0]]
    )


def test_rows_that_iceberg_deletes_by_filter_are_gone_and_older_versions_have_them(
    lake: Lake,
) -> None:
    ids, vectors = made(300)
    before = store(lake, ids, vectors)
    with lake.run(stage="erase") as run:
        empty = pa.table({"sample_id": pa.array([], pa.string()),
                          "vector": pa.array([], pa.binary(4 * D))})  # fmt: skip
        run.replace("embeddings_s", empty, f"sample_id in ('{ids[0]}', '{ids[250]}')")
        run.commit()
    held = dict(zip(ids, vectors, strict=True))
    expect(lake, held, before)
    expect(lake, {name: row for name, row in held.items() if name not in (ids[0], ids[250])})


def test_vectors_made_anew_take_the_place_of_the_old_and_other_files_are_left_alone(
    lake: Lake,
) -> None:
    ids, vectors = made(500)
    before = store(lake, ids, vectors)
    files = parquet(lake)
    held = dict(zip(ids, vectors, strict=True))
    changed = [*ids[:2], "new"]
    fresh = np.arange(3 * D, dtype=np.float32).reshape(3, D)
    store(lake, changed, fresh, anew=True)
    expect(lake, held, before)
    expect(lake, held | dict(zip(changed, fresh, strict=True)))
    assert len(set(files) & set(parquet(lake))) == len(files) - 1
    assert all(mapped(lake))
    store(lake, ids, vectors, anew=True)
    expect(lake, held | {"new": fresh[2]})


def test_any_reader_of_parquet_reads_the_files(lake: Lake) -> None:
    ids, vectors = made(100)
    store(lake, ids, vectors)
    rows = pq.read_table(parquet(lake)[0])
    assert rows["sample_id"].to_pylist() == ids
    assert b"".join(rows["vector"].to_pylist()) == vectors.tobytes()
    column = pq.ParquetFile(parquet(lake)[0]).metadata.row_group(0).column(1)
    assert (column.compression, column.is_stats_set) == ("UNCOMPRESSED", False)


def test_huge_components_are_finite_and_cancelling_infinities_are_not(lake: Lake) -> None:
    largest = np.finfo(np.float32).max
    store(lake, ["a"], np.full((1, D), largest, np.float32))
    wrong = np.zeros((1, D), np.float32)
    wrong[0, :2] = [np.inf, -np.inf]
    with pytest.raises(InputError, match="NaN or infinity"):
        store(lake, ["b"], wrong)
    assert lake.embedded("s") == ({"a"}, set())
