"""A check names what is broken in a lake, and finds nothing in one that is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.lake.old_lake import LOOP, on_disk, restored
from tests.lake.test_backup import add_model
from visionloop.lake import Lake, tables
from visionloop.lake.checking import Finding, check
from visionloop.lake.storage import local_path


@pytest.fixture
def old(tmp_path: Path) -> Lake:
    lake = restored(tmp_path / "lake")
    add_model(lake, "m1")
    return lake


def broken(lake: Lake) -> dict[str, Finding]:
    return {found.check: found for found in check(lake) if found.broken}


def append(table: str, **columns: list[Any]) -> Callable[[Lake], None]:
    def write(lake: Lake) -> None:
        with lake.run(stage="ingest", round_id="0000") as run:
            run.append(table, pa.table(columns))
            run.commit()

    return write


def vectors(*rows: list[float], ids: list[str] | None = None) -> Callable[[Lake], None]:
    def write(lake: Lake) -> None:
        known = sorted(lake.read("samples")["sample_id"].to_pylist())
        with lake.run(stage="infer", round_id="0000") as run:
            run.append_embeddings("other", ids or known[: len(rows)], np.array(rows, np.float32))
            run.commit()

    return write


def count(**counts: int) -> Callable[[Lake], None]:
    def write(lake: Lake) -> None:
        with lake.run(stage="monitor", round_id="0000") as run:
            run.commit(counts=counts)

    return write


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Lake], None]:
    def write(lake: Lake) -> None:
        held = json.loads(lake.storage.read(lake.path(*name.split("/"))))
        change(held)
        lake.storage.write(lake.path(*name.split("/")), json.dumps(held).encode())

    return write


def media(lake: Lake, place: int) -> Path:
    return local_path(sorted(lake.media().values())[place])


def test_a_whole_lake_has_nothing_broken_and_everything_was_looked_at(old: Lake) -> None:
    found = {one.check: one.checked for one in check(old)}
    assert not broken(old)
    assert found["samples.sample_id in files"] == 12
    assert found["media: every sample is there"] == 12
    assert found["models: every bundle is whole"] == 1
    assert found["serving: the pointer names the model in service"] == 1
    assert found["stage_runs: in = ok + flagged + unreadable + skipped"] == 4
    assert found["tables: every file is there"] > 30
    assert not [one for one in Lake.open(old.uri, loop="none").history().to_pylist()]


def test_a_stage_that_counts_what_people_have_not_answered_yet_reconciles(old: Lake) -> None:
    with old.run(stage="collect_labels", round_id="0000") as run:
        run.commit(counts={"in": 5, "ok": 2, "skipped": 1, "missing": 2})
    assert not broken(old)
    with old.run(stage="collect_labels", round_id="0000") as run:
        run.commit(counts={"in": 5, "ok": 2, "skipped": 1, "missing": 1})
    assert broken(old)


FAULTS = {
    "labels.sample_id in samples": (append("labels", sample_id=["x"]), "x is not in samples"),
    "predictions.model_id in experiments": (
        append("predictions", sample_id=[""], model_id=["m9"]),
        "m9 is not in experiments",
    ),
    "confidences.event_id in harvest_events": (
        append("confidences", event_id=["e"]),
        "e is not in harvest_events",
    ),
    "checks.subject": (append("checks", subject=["s"]), "sample or file s is not in the lake"),
    "flags.subject": (
        append("flags", subject=["m9", "endpoint"], subject_type=["model", "endpoint"]),
        "model m9 is not in the lake",
    ),
    "files: one row for each uri and generation": (
        append("files", uri=["a", "a"], generation=["1", "1"], state=["unreadable"] * 2),
        "a, 1 is there more than once",
    ),
    "files: a sample if and only if readable": (
        append("files", uri=["a"], state=["ok"]),
        "a is 'ok' with sample None",
    ),
    "selections: one row for each round_id and sample_id and arm": (
        append("selections", sample_id=["", ""], arm=["random", "random"]),
        "0000, , random is there more than once",
    ),
    "experiments: labels add up": (
        append("experiments", model_id=["m2"], n_labels=[5], training_set=["t"]),
        "m2 was trained on 5 labels, its training set has 2",
    ),
    "rounds: in sequence, one open": (
        append("rounds", round_id=["0001"], state=["running"]),
        "rounds 0, 1 are open at once",
    ),
    "stage_runs: in = ok + flagged + unreadable + skipped": (
        count(**{"in": 5, "ok": 3, "flagged": 1}),
        "monitor of round 0 counted 5 in and 4 out",
    ),
    "embeddings_other: finite, of length 1, one a sample": (
        vectors([3.0, 4.0]),
        "has length 5.0000",
    ),
    "models: every bundle is whole": (
        edit("models/m1/card.json", lambda card: card.update(files={"model.onnx": "0"})),
        "m1: cannot read",
    ),
    "serving: the pointer names the model in service": (
        edit(f"serving/{LOOP}.json", lambda pointer: pointer.update(model_uri="/nowhere")),
        "cannot read",
    ),
    "media: every sample is there": (
        lambda lake: media(lake, 0).unlink(),
        "is missing",
    ),
    "media: no sample has changed": (
        lambda lake: media(lake, 1).write_bytes(b"other"),
        "is changed: it is no longer sample",
    ),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    """Return what is found in a lake that has every fault."""
    lake = restored(tmp_path_factory.mktemp("faulty") / "lake")
    add_model(lake, "m1")
    for make, _ in FAULTS.values():
        make(lake)
    return broken(lake)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named_with_a_remedy(faulty: dict[str, Finding], name: str) -> None:
    said = FAULTS[name][1]
    assert any(said in example for example in faulty[name].examples), faulty[name].examples
    assert faulty[name].remedy and faulty[name].broken <= 2


def test_vectors_of_strangers_and_the_same_twice_are_found(old: Lake) -> None:
    vectors([1.0, 0.0], [0.0, 1.0], [0.0, 1.0], ids=["x", "y", "y"])(old)
    found = broken(old)["embeddings_other: finite, of length 1, one a sample"]
    assert found.broken == 4  # x and both y are no samples, and y is there twice
    assert "y is there more than once" in found.examples


def test_a_data_file_that_is_gone_is_named_and_rows_are_not_read(old: Lake) -> None:
    assert old.version()
    lost = next(path for path in sorted(on_disk(old.uri)) if "/samples/data/" in path)
    os.remove(lost)
    (found,) = broken(old).values()
    assert found.check == "tables: every file is there"
    assert found.examples == [f"samples: {lost} is missing"]


def test_a_version_whose_snapshot_is_gone_is_named(old: Lake) -> None:
    version = old.version()
    append("labels", sample_id=[""])(old)
    append("labels", sample_id=[""])(old)
    table = tables.load_table(old.catalog, LOOP, "labels")
    assert table is not None
    going = table.snapshots()[0].snapshot_id
    table.maintenance.expire_snapshots().by_id(going).commit()
    found = broken(old)["versions: every snapshot is there"]
    assert found.broken == 1 and f"needs the snapshot {going} of labels" in found.examples[0]
    assert version not in found.examples[0]


def test_media_where_it_was_found_may_be_touched_and_not_changed(
    lake: Lake, tmp_path: Path
) -> None:
    import hashlib

    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for i in range(3):
        path = folder / f"{i} ü.png"
        path.write_bytes(bytes([i]) * 9)
        rows.append((path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest(), path))
    with lake.run(stage="ingest") as run:
        ids = [sample for _, sample, _ in rows]
        uris = [uri for uri, _, _ in rows]
        generations = [str(path.stat().st_mtime_ns) for _, _, path in rows]
        run.append("samples", pa.table({"sample_id": ids, "uri": uris}))
        run.append(
            "files",
            pa.table(
                {"uri": uris, "sample_id": ids, "state": ["ok"] * 3, "size": [9] * 3,
                 "generation": generations, "source": [folder.as_uri()] * 3}
            ),
        )  # fmt: skip
        run.commit()
    assert not broken(lake)
    os.utime(rows[0][2], (1, 1))
    assert not broken(lake)
    rows[1][2].write_bytes(b"different")
    rows[2][2].unlink()
    found = broken(lake)
    assert found["media: no sample has changed"].examples[0].startswith(rows[1][0])
    assert found["media: every sample is there"].examples == [f"{rows[2][0]} is missing"]


def test_a_loop_that_holds_nothing_has_nothing_broken(lake: Lake) -> None:
    assert not broken(lake)


def removed(lake: Lake, sample_id: str, reason: str) -> None:
    """Do what an ingest does that finds a sample's only file gone, or other bytes in its place."""
    rows = lake.read("files", where=f"sample_id == '{sample_id}'")
    place = rows.schema.get_field_index("state")
    rows = rows.set_column(place, "state", pa.array(["removed"]))
    rows = rows.set_column(place + 1, "reason", pa.array([reason]))
    with lake.run(stage="ingest", round_id="0000") as run:
        run.replace("files", rows, f"sample_id == '{sample_id}'")
        run.commit()


def referenced(lake: Lake, tmp_path: Path) -> dict[str, Path]:
    """Move the lake's copies to a source outside of it, and return each sample's file."""
    source = tmp_path / "source"
    source.mkdir()
    files = {}
    samples, rows = lake.read("samples"), lake.read("files").to_pylist()
    for sample, uri in lake.media().items():
        files[sample] = source / local_path(uri).name
        files[sample].write_bytes(lake.storage.read(uri))
    uris = pa.array([files[sample].as_uri() for sample in samples["sample_id"].to_pylist()])
    samples = samples.set_column(samples.schema.get_field_index("uri"), "uri", uris)
    rows = [
        row | {"source": source.as_uri()}
        | ({"uri": files[row["sample_id"]].as_uri()} if row["sample_id"] else {})
        for row in rows
    ]  # fmt: skip
    with lake.run(stage="ingest", round_id="0000") as run:
        run.replace("samples", samples, "uri != 'none'")
        run.replace("files", pa.Table.from_pylist(rows), "uri != 'none'")
        run.commit()
    return files


def test_photos_that_were_removed_or_edited_are_not_broken_once_an_ingest_has_seen_it(
    old: Lake, tmp_path: Path
) -> None:
    files = referenced(old, tmp_path)
    assert not broken(old)
    gone, edited = sorted(files)[:2]
    files[gone].unlink()
    files[edited].write_bytes(b"other bytes")
    found = broken(old)
    assert set(found) == {"media: every sample is there", "media: no sample has changed"}
    assert "ingest again" in found["media: every sample is there"].remedy
    removed(old, gone, "gone")
    removed(old, edited, "replaced")
    assert not broken(old)
    told = {one.check: one.checked for one in check(old)}
    assert told["media: samples known to be removed or overwritten"] == 2
    assert told["media: every sample is there"] == 10


def test_a_copy_in_the_lake_is_missed_even_where_its_source_was_removed(old: Lake) -> None:
    sample, uri = min(old.media().items())
    removed(old, sample, "gone")
    assert not broken(old)
    local_path(uri).unlink()
    assert set(broken(old)) == {"media: every sample is there"}


def test_a_sample_that_names_no_file_is_told_of(old: Lake) -> None:
    append("samples", sample_id=["x"])(old)
    append("files", uri=["y"], generation=["1"], state=["ok"], sample_id=["x"])(old)
    found = broken(old)["media: every sample is there"]
    assert (found.broken, found.examples) == (1, ["the sample x names no file"])
