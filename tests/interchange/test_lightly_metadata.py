"""LightlyOne's schema gives metadata its columns, types and defaults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.interchange.sets import images, pictures, read
from tests.interchange.test_lake import bring
from visionloop.interchange.formats import write_set
from visionloop.interchange.lightly_metadata import MetadataSchema
from visionloop.interchange.records import Annotated, Problems
from visionloop.lake import Lake
from visionloop.lake.schemas import TIME

SCHEMA: list[dict[str, Any]] = [
    {"name": "Scene", "path": "scene", "defaultValue": "undefined",
     "valueDataType": "CATEGORICAL_STRING"},
    {"name": "Weather description", "path": "weather.description", "defaultValue": "nothing",
     "valueDataType": "CATEGORICAL_STRING"},
    {"name": "Temperature", "path": "weather.temperature", "defaultValue": None,
     "valueDataType": "NUMERIC_FLOAT"},
    {"name": "Air pressure", "path": "weather.air_pressure", "defaultValue": 0,
     "valueDataType": "NUMERIC_INT"},
    {"name": "Vehicle", "path": "vehicle_id", "valueDataType": "CATEGORICAL_INT"},
    {"name": "Night", "path": "night", "valueDataType": "CATEGORICAL_BOOLEAN"},
    {"name": "Taken", "path": "taken", "valueDataType": "CATEGORICAL_DATETIME"},
    {"name": "Uploaded", "path": "uploaded", "valueDataType": "CATEGORICAL_TIMESTAMP"},
    {"name": "ISO", "path": "sensors[1].iso", "valueDataType": "NUMERIC_INT"},
]  # fmt: skip
STREET = {
    "scene": "street",
    "weather": {"description": "rain", "temperature": "10.5", "air_pressure": 1},
    "vehicle_id": 321912,
    "night": True,
    "taken": "2026-01-02T03:04:05.678Z",
    "uploaded": 1767323045,
    "sensors": [{"iso": 1}, {"iso": 400}],
    "driver": {"name": "Ada"},
}


def made(folder: Path, schema: Any, said: dict[str, Any]) -> Path:
    images(folder, "sub/a.png", "b.png", "c.png")
    for number, name in enumerate(("sub/a.png", "b.png", "c.png")):
        # Bytes of their own: the same bytes are one sample.
        place = folder / name
        place.write_bytes(place.read_bytes() + bytes([number]))
    metadata = folder / ".lightly" / "metadata"
    (metadata / "sub").mkdir(parents=True)
    (metadata / "schema.json").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    for name, known in said.items():
        content = {"file_name": f"{name}.png", "type": "image", "metadata": known}
        (metadata / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_schema_gives_columns_types_and_defaults(lake: Lake, tmp_path: Path) -> None:
    said = {"sub/a": STREET, "b": {"weather": {"temperature": 3}, "night": "false"}}
    folder = made(tmp_path, SCHEMA, said)
    found, problems = read("lightly", folder)
    assert problems.counts == {"no_annotation": 1}
    assert found["sub/a.png"].metadata == {
        "scene": "street",
        "weather.description": "rain",
        "weather.temperature": 10.5,
        "weather.air_pressure": 1,
        "vehicle_id": 321912,
        "night": True,
        "taken": "2026-01-02T03:04:05.678000+00:00",
        "uploaded": "2026-01-02T03:04:05+00:00",
        "sensors[1].iso": 400,
        "sensors": [{"iso": 1}, {"iso": 400}],
        "driver.name": "Ada",
    }
    defaults = {"scene": "undefined", "weather.description": "nothing", "weather.air_pressure": 0}
    assert found["b.png"].metadata == defaults | {"weather.temperature": 3, "night": False}
    assert found["c.png"].metadata == defaults  # as LightlyOne has it of every image
    bring(lake, "lightly", folder)
    table = lake.read("metadata")
    types = {field.name: field.type for field in table.schema}
    assert types["weather_temperature"] == pa.float64()
    assert types["night"] == pa.bool_()
    assert types["taken"] == types["uploaded"] == TIME
    assert types["vehicle_id"] == types["sensors_1_iso"] == pa.float64()
    assert sorted(table["weather_description"].to_pylist()) == ["nothing", "nothing", "rain"]
    assert table["weather_temperature"].null_count == 1  # no default: not known is not known
    assert not [f for f in lake.read("flags").to_pylist() if f["kind"] == "metadata_conflict"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("NUMERIC_INT", {8: 8, "7": 7, 7.0: 7, "9007199254740993": 2**53 + 1}, [7.5, True, "x"]),
        ("NUMERIC_FLOAT", {7: 7, "7.5": 7.5, 1e-3: 1e-3}, [True, "nan", "x", [1]]),
        ("CATEGORICAL_INT", {7: 7}, ["a", 0.5]),
        ("CATEGORICAL_BOOLEAN", {True: True, "TRUE": True, "false": False}, ["yes", 1.5, 3]),
        ("CATEGORICAL_STRING", {"": "", "a": "a", 7: "7", 7.5: "7.5"}, [["a"], {"b": 1}]),
        ("CATEGORICAL_DATETIME", {"2026-01-02": "2026-01-02T00:00:00"}, ["rain", 5]),
        ("CATEGORICAL_TIMESTAMP", {0: "1970-01-01T00:00:00+00:00",
                                   1767323045000: "2026-01-02T03:04:05+00:00"}, ["x", 1e30]),
    ],
)  # fmt: skip
def test_values_are_of_their_columns_type_or_left_out_and_told(
    kind: str, good: dict[Any, Any], bad: list[Any]
) -> None:
    problems = Problems()
    schema = MetadataSchema([{"path": "x", "valueDataType": kind}], "schema.json", problems)
    for value, wanted in good.items():
        held = schema.values({"x": value}, "a.json")["x"]
        assert (type(held), held) == (type(wanted), wanted)
    assert not problems.counts
    for value in bad:
        assert "x" not in schema.values({"x": value}, "a.json")
    assert problems.counts == {"metadata_type": len(bad)}
    assert problems.examples["metadata_type"][0].field == "metadata.x"


def test_what_is_wrong_with_a_schema_is_told_and_the_values_stay(tmp_path: Path) -> None:
    entries = [
        {"path": "a", "valueDataType": "NUMERIC_INT", "defaultValue": "none"},
        {"path": "a", "valueDataType": "NUMERIC_FLOAT"},
        {"path": "b", "valueDataType": "PICTURE"},
        {"name": "no path", "valueDataType": "NUMERIC_INT"},
        "nothing",
    ]
    found, problems = read("lightly", made(tmp_path / "1", entries, {"b": {"b": {"c": 1}}}))
    assert problems.counts == {"metadata_schema": 4, "metadata_type": 1, "no_annotation": 2}
    assert found["b.png"].metadata == {"b.c": 1}
    for number, (text, kind) in enumerate((("{", "bad_json"), ("{}", "metadata_schema"))):
        found, problems = read("lightly", made(tmp_path / f"x{number}", text, {"b": {"w": "rain"}}))
        assert problems.counts == {kind: 1, "no_annotation": 2}
        assert found["b.png"].metadata == {"w": "rain"}


def test_what_is_not_known_stays_unknown_when_it_went_out_and_came_in(tmp_path: Path) -> None:
    records = [
        Annotated("a.png", width=9, height=9, labels=("cat",), metadata={"iso": 3, "wet": True}),
        Annotated("b.png", width=9, height=8, labels=("cat",), metadata={"iso": 0.5}),
        Annotated("c.png", width=9, height=7, labels=("cat",)),
    ]
    places = pictures(tmp_path / "media", records)
    placed = [replace(record, uri=places[record.file]) for record in records]
    write_set("lightly", placed, str(tmp_path / "set"))
    schema = json.loads((tmp_path / "set/.lightly/metadata/schema.json").read_text())
    assert {e["path"]: e["valueDataType"] for e in schema} == {
        "iso": "NUMERIC_FLOAT", "wet": "CATEGORICAL_BOOLEAN",
    }  # fmt: skip
    found, problems = read("lightly", tmp_path / "set")
    assert not problems.counts
    assert {file: dict(r.metadata) for file, r in found.items()} == {
        r.file: dict(r.metadata) for r in records
    }
