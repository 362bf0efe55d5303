"""An older lake becomes today's when it is opened; a newer one is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.lake.old_lake import BACKUP, LOOP, VERSION, killed, restored, rows
from visionloop import __version__
from visionloop.errors import InputError
from visionloop.lake import Lake, migration, schemas, tables
from visionloop.lake.catalog import open_catalog


def layout(root: Path) -> tuple[str, list[str]]:
    """Return the schema version and the columns of a lake's history, without opening the lake."""
    table = open_catalog(str(root), "").load_table((LOOP, "stage_runs"))
    return table.properties[tables.SCHEMA_PROPERTY], table.schema().column_names


def test_a_lake_of_version_1_is_migrated_when_it_is_opened_and_goes_on(tmp_path: Path) -> None:
    restored(tmp_path)
    version, columns = layout(tmp_path)
    assert version == "1" and "program" not in columns

    lake = Lake.open(str(tmp_path), loop=LOOP)
    assert lake.version() == VERSION
    version, columns = layout(tmp_path)
    assert version == str(schemas.SCHEMA_VERSION) and columns.count("program") == 1
    assert lake.read("samples").num_rows == 12
    assert lake.embeddings("pixels_9984290f")[1].shape == (12, 4)

    assert lake.rounds.open("second").round_id == "0000"
    history = lake.history()
    assert history["stage"].to_pylist()[-2:] == ["restore", "open_round"]
    assert history["program"].to_pylist()[-3:] == [None, None, __version__]
    assert "program" in lake.stage_runs(where="stage == 'ingest'").column_names


def test_the_columns_of_version_1_are_still_there_with_their_types() -> None:
    for folder in sorted((BACKUP / "tables").iterdir()):
        if not folder.name.startswith("embeddings_"):
            held = pq.read_schema(folder / "00000.parquet")
            today = schemas.arrow_schema(folder.name)
            extra = {"camera", "lux"} if folder.name == "metadata" else set()
            for field in held:
                if field.name not in extra:
                    empty = pa.nulls(0, field.type)
                    assert (
                        today.field(field.name).type
                        == tables.narrow(pa.table({"c": empty})).schema.field("c").type
                    )


def test_every_version_of_the_schemas_has_its_step() -> None:
    assert set(migration.STEPS) == set(range(2, schemas.SCHEMA_VERSION + 1))


def test_a_later_step_adds_a_column_that_old_rows_and_old_versions_have_as_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Lake.open(restored(tmp_path).uri, loop=LOOP)
    with before.run(stage="ingest") as run:
        run.append("files", pa.table({"uri": ["new"], "state": ["skipped"]}))
        later = run.commit()

    wider = {**schemas.TABLES, "files": [*schemas.TABLES["files"], ("checksum", pa.string())]}
    monkeypatch.setattr(schemas, "TABLES", wider)
    next_version = schemas.SCHEMA_VERSION + 1
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", next_version)
    monkeypatch.setitem(migration.STEPS, next_version, migration.add_missing_columns)
    lake = Lake.open(str(tmp_path), loop=LOOP)
    assert set(lake.read("files")["checksum"].to_pylist()) == {None}
    assert lake.read("files", columns=["uri", "checksum"], version=VERSION).num_rows == 13
    assert layout(tmp_path)[0] == str(next_version)
    with lake.run(stage="ingest") as run:
        run.append("files", pa.table({"uri": ["newer"], "checksum": ["c1"]}))
        run.commit()
    assert lake.read("files", where="checksum == 'c1'")["uri"].to_pylist() == ["newer"]
    assert lake.read("files", where="checksum == 'c1'", version=later).num_rows == 0


def test_a_migration_that_is_killed_half_way_is_done_by_the_next_one(tmp_path: Path) -> None:
    restored(tmp_path)
    killed(
        """
        import os, signal, sys
        from visionloop.lake import Lake, migration

        def step(catalog, loop):
            migration.add_missing_columns(catalog, loop)
            os.kill(os.getpid(), signal.SIGKILL)

        migration.STEPS[2] = step
        Lake.open(sys.argv[1], loop="old").version()
        """,
        str(tmp_path),
    )
    assert layout(tmp_path)[0] == "1"
    lake = Lake.open(str(tmp_path), loop=LOOP)
    assert lake.version() == VERSION
    version, columns = layout(tmp_path)
    assert version == str(schemas.SCHEMA_VERSION) and columns.count("program") == 1


def test_processes_that_open_an_older_lake_at_once_migrate_it_once(tmp_path: Path) -> None:
    expected = rows(restored(tmp_path))
    other = tmp_path / "other"
    restored(other)
    program = "import sys; from visionloop.lake import Lake; "
    program += "print(Lake.open(sys.argv[1], loop='old').version())"
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(other)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [child.communicate(timeout=60)[0].decode().strip() for child in children] == [
        VERSION
    ] * 3
    assert layout(other)[1].count("program") == 1
    assert rows(Lake.open(str(other), loop=LOOP)) == expected


def test_a_lake_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    restored(tmp_path)
    table = open_catalog(str(tmp_path), "").load_table((LOOP, "stage_runs"))
    with table.transaction() as change:
        change.set_properties({tables.SCHEMA_PROPERTY: "99"})
    with pytest.raises(InputError, match=r"schema version 99.*Upgrade visionloop"):
        Lake.open(str(tmp_path), loop=LOOP).version()
    assert layout(tmp_path)[0] == "99"


def test_a_new_lake_is_of_todays_version(lake: Lake) -> None:
    with lake.run(stage="ingest") as run:
        run.append("files", pa.table({"uri": ["a"]}))
        run.commit()
    assert migration.stored_version(lake.catalog, lake.loop) == schemas.SCHEMA_VERSION


def test_all_who_open_a_new_lake_at_once_find_it(tmp_path: Path) -> None:
    for number in range(4):
        root = str(tmp_path / str(number))
        together = threading.Barrier(6)

        def opened(root: str = root, together: threading.Barrier = together) -> list[str]:
            together.wait()
            return [name for name, _ in migration.loop_tables(open_catalog(root, ""), LOOP)]

        with ThreadPoolExecutor(6) as pool:
            assert [task.result() for task in [pool.submit(opened) for _ in range(6)]] == [[]] * 6
