"""A round that a lake of schema version 5 waits in goes on as one of today's does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from tests.labeling.conftest import Asking
from visionloop.lake import Lake, migration, schemas, tables
from visionloop.lake.checking import check

# What version 6 added.
NEW = {
    "labels": {"seconds", "n_annotations", "quality", "model_id"},
    "label_requests": {"rank", "reason", "answers", "recalled"},
    "training_sets": {"origin"},
}


def test_a_round_of_schema_version_5_is_asked_again_collected_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = schemas.SCHEMA_VERSION
    ids = [letter * 64 for letter in "abyz"]
    uris = [f"file:///data/{sample[0]}.png" for sample in ids]
    with monkeypatch.context() as patch:
        old = {
            name: [column for column in columns if column[0] not in NEW.get(name, set())]
            for name, columns in schemas.TABLES.items()
            if name not in ("annotations", "relabels")
        }
        patch.setattr(schemas, "TABLES", old)
        lake = Lake.open(str(tmp_path / "lake"), loop="test")
        lake.rounds.open("run")
        asked = datetime(2026, 1, 1, tzinfo=UTC)
        with lake.run(stage="request_labels", round_id="0000") as run:
            run.append("files", pa.table({"uri": uris, "sample_id": ids, "state": ["ok"] * 4}))
            splits = ["pool", "pool", "holdout", "holdout"]
            run.append("samples", pa.table({"sample_id": ids, "uri": uris, "split": splits}))
            run.append("selections", pa.table({"sample_id": ids[:2], "rank": [0, 1]}))
            purposes = ["training", "training", "holdout", "holdout"]
            told = {"sample_id": ids, "purpose": purposes, "provider": ["csv"] * 4}
            run.append("label_requests", pa.table(told | {"requested_at": [asked] * 4}))
            label = {"sample_id": ids[0], "task": "classification", "label": "cat"}
            label |= {"annotator": "csv", "origin": "csv", "created_at": asked}  # type: ignore[dict-item]
            run.append("labels", pa.Table.from_pylist([label]))
            run.set_round(state="waiting")
            run.commit()
        table = lake.catalog.load_table(("test", "stage_runs"))
        with table.transaction() as change:
            change.set_properties({tables.SCHEMA_PROPERTY: "5"})
        assert "rank" not in lake.table("label_requests").schema().column_names  # type: ignore[union-attr]
        assert migration.stored_version(lake.catalog, "test") == 5

    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    assert lake.version() and migration.stored_version(lake.catalog, "test") == today
    assert lake.read("annotations").num_rows == 0
    asking = Asking(lake)
    assert asking.request(provider="csv").n_requested == 4
    rows = lake.read("label_requests").sort_by("rank").to_pylist()
    assert [row["sample_id"][0] for row in rows] == list("yabz")
    assert {row["requested_at"] for row in rows} == {asked}
    path = Path(lake.path("label_requests", "test-0000.csv").removeprefix("file://"))
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], *(line.replace(",,", ",dog,", 1) for line in lines[1:])]) + "\n"
    )
    done = asking.collect()
    assert (done.n_labels, done.n_missing) == (4, 0) and done.trainable_version
    # What was collected before stays as it was, though the file says another thing.
    assert asking.labels() == {"a": "cat", "b": "dog", "y": "dog", "z": "dog"}
    wrong = {f.check for f in check(lake) if f.broken and "annotations" in f.check}
    assert wrong == set()
