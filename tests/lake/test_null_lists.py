"""That nobody looked for objects is not that there are none: null lists stay null in a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyiceberg.io.pyarrow
import pytest

from visionloop.labeling.answers import DETECTION, latest_boxes
from visionloop.lake import Lake, backup, compact, parts, restore
from visionloop.lake.schemas import arrow_schema
from visionloop.lake.storage import local_path
from visionloop.selection.in_service import finds_objects

BOX = {"x_min": 1.0, "y_min": 2.0, "x_max": 3.0, "y_max": 4.0, "label": "cat", "scores": [0.5]}
SAID: dict[str, Any] = {
    "a": None,
    "b": [],
    "c": [BOX, {**BOX, "scores": None, "label": None}],
    "d": None,
    "e": [{**BOX, "scores": []}],
    "f": [],
    "g": None,
}


def add(lake: Lake, table: str, said: dict[str, Any], **more: Any) -> None:
    with lake.run(stage="test") as run:
        rows = [{"sample_id": name, "boxes": boxes, **more} for name, boxes in said.items()]
        run.append(table, pa.Table.from_pylist(rows, arrow_schema(table)))
        run.commit()


def held(lake: Lake, table: str, **how: Any) -> dict[str, Any]:
    rows = lake.read(table, columns=["sample_id", "boxes"], **how).to_pylist()
    return {row["sample_id"]: row["boxes"] for row in rows}


@pytest.mark.parametrize("table", ["labels", "predictions", "confidences"])
def test_a_null_list_of_boxes_stays_null_through_everything_a_lake_does(
    table: str, lake: Lake, tmp_path: Path
) -> None:
    some = dict(list(SAID.items())[:4])
    add(lake, table, some)
    assert held(lake, table) == some
    add(lake, table, dict(list(SAID.items())[4:]))
    assert held(lake, table) == SAID
    # What stands in the files, for whoever else reads them.
    files = sorted(local_path(lake.uri).rglob(f"{table}/data/*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert {row["sample_id"]: row["boxes"] for row in rows} == SAID
    # A filter takes rows out of the middle of a file; a replacement writes its others again.
    assert held(lake, table, where="sample_id in ('b', 'd', 'f')") == {
        name: SAID[name] for name in "bdf"
    }
    batches = parts.batches(lake, table, ["sample_id", "boxes"], None, "")
    assert {row["sample_id"]: row["boxes"] for b in batches for row in b.to_pylist()} == SAID
    with lake.run(stage="test") as run:
        row = pa.Table.from_pylist([{"sample_id": "b", "boxes": [BOX]}], arrow_schema(table))
        run.replace(table, row, "sample_id == 'b'")
        run.commit()
    wanted = SAID | {"b": [BOX]}
    assert held(lake, table) == wanted
    compact.compact(lake, min_files=2)
    assert held(lake, table) == wanted
    backup.backup(lake, str(tmp_path / "backup"))
    again, _ = restore.restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert held(again, table) == wanted


def test_an_image_that_a_detector_did_not_see_is_not_one_in_which_it_found_nothing(
    lake: Lake,
) -> None:
    model = {"model_id": "m"}
    add(lake, "predictions", {"a": None}, model_id="m", label="cat")
    assert finds_objects(lake, model, "") is False  # no list, and no probabilities either
    add(lake, "predictions", {"b": []}, model_id="m")
    assert finds_objects(lake, model, "") is True


def test_rows_of_before_in_which_null_was_stored_as_an_empty_list_mean_what_they_meant(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.table("labels")  # loads what is taken away again: files are written as they were
    with monkeypatch.context() as patch:
        stock = pyiceberg.io.pyarrow.ArrowProjectionVisitor.__mro__[1]
        patch.setattr(pyiceberg.io.pyarrow, "ArrowProjectionVisitor", stock)
        add(lake, "labels", {"a": None}, task="classification", label="cat")
        add(lake, "labels", {"b": [], "c": [BOX]}, task=DETECTION)
        add(lake, "predictions", {"a": None}, model_id="m", label="cat", probabilities=[1.0])
    assert held(lake, "labels") == {"a": [], "b": [], "c": [BOX]}
    rows = lake.read("labels").to_pylist()
    assert sorted(latest_boxes(rows)) == ["b", "c"]
    assert finds_objects(lake, {"model_id": "m"}, "") is False
