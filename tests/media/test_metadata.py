"""Sidecars: typed columns, and nothing lost on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionloop.media.metadata import (
    MAX_SIDECAR_BYTES,
    RESERVED,
    capture_time,
    column_name,
    metadata_table,
    parse_sidecar,
    sidecar_of,
)
from visionloop.media.metadata_room import MAX_COLUMNS, MAX_OWN_COLUMNS
from visionloop.media.records import metadata_schema

EMPTY = pa.schema([("sample_id", pa.string()), ("raw", pa.string())])


def sidecar(content: Any) -> Any:
    return parse_sidecar(json.dumps(content).encode())


def table(*contents: Any, existing: pa.Schema = EMPTY) -> tuple[pa.Table, list[str]]:
    rows, problems = metadata_table(
        {f"s{i}": sidecar(content) for i, content in enumerate(contents)}, existing
    )
    return rows, [f"{p.sample_id} {p.kind}: {p.detail}" for p in problems]


def test_each_kind_of_value_gets_its_type() -> None:
    rows, problems = table(
        {
            "camera": "dock",
            "flash": False,
            "iso": 400,
            "gain": 1.5,
            "captured_at": "2026-03-02T08:12:33+02:00",
            "day": "2026-03-02",
            "tags": ["wet", "fog"],
            "nothing": None,
        }
    )
    assert not problems
    types = {field.name: field.type for field in rows.schema}
    assert types.pop("sample_id") == types.pop("raw") == pa.string()
    assert types == {
        "camera": pa.string(),
        "flash": pa.bool_(),
        "iso": pa.float64(),
        "gain": pa.float64(),
        "captured_at": pa.timestamp("us", tz="UTC"),
        "day": pa.timestamp("us", tz="UTC"),
        "tags": pa.string(),
    }
    row = rows.to_pylist()[0]
    assert row["captured_at"] == datetime(2026, 3, 2, 6, 12, 33, tzinfo=UTC)
    assert row["day"] == datetime(2026, 3, 2, tzinfo=UTC)
    assert row["iso"] == 400.0 and row["tags"] == '["wet", "fog"]'


def test_nested_objects_become_flat_columns() -> None:
    rows, _ = table({"sensor": {"iso": 100, "lens": {"f": 2.8}}, "Place Name": "Köln"})
    assert rows.drop_columns(["sample_id", "raw"]).to_pylist() == [
        {"sensor_iso": 100.0, "sensor_lens_f": 2.8, "place_name": "Köln"}
    ]


@given(st.text(max_size=20))
def test_every_name_leads_to_one_plain_column(name: str) -> None:
    column = column_name(name)
    assert column == column_name(name)
    assert column.replace("_", "a").isalnum() and column.isascii()
    assert column == column.lower() and not column[0].isdigit()
    assert column not in RESERVED


def test_names_that_lead_to_one_column_are_told() -> None:
    rows, problems = table({"Camera ID": "a", "camera-id": "b"})
    assert rows["camera_id"].to_pylist() == ["a"]
    assert problems == ["s0 metadata_conflict: several names lead to column 'camera_id'"]
    assert json.loads(rows["raw"][0].as_py())["camera-id"] == "b"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"camera": "a"', "not JSON"),
        (b"[1, 2]", "a JSON list instead of an object"),
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": "' + b"x" * MAX_SIDECAR_BYTES + b'"}', "larger than"),
    ],
)
def test_a_bad_sidecar_keeps_its_text_and_is_told(data: bytes, told: str) -> None:
    rows, problems = metadata_table({"s": parse_sidecar(data), "t": sidecar({"a": 1})}, EMPTY)
    assert rows["sample_id"].to_pylist() == ["s", "t"]
    assert rows["a"].to_pylist() == [None, 1.0]
    assert [(p.sample_id, p.kind) for p in problems] == [("s", "bad_sidecar")]
    assert told in problems[0].detail
    assert (
        rows["raw"][0].as_py()[:10]
        == data.decode("utf-8", "replace").replace("\x00", "\ufffd")[:10]
    )


def test_a_batch_that_mixes_types_makes_a_text_column_and_loses_nothing() -> None:
    rows, problems = table({"speed": 3}, {"speed": "fast"}, {"speed": "2026-03-02"})
    assert rows["speed"].to_pylist() == ["3", "fast", "2026-03-02"]
    assert not problems


def test_a_value_that_does_not_fit_its_column_stays_in_raw_and_is_told() -> None:
    existing = pa.schema([*EMPTY, ("speed", pa.float64()), ("name", pa.string())])
    rows, problems = table({"speed": "fast", "name": 7}, {"speed": 4}, existing=existing)
    assert rows["speed"].to_pylist() == [None, 4.0]
    assert rows["name"].to_pylist() == ["7", None]
    assert problems == ["s0 metadata_conflict: column 'speed' holds numbers, not 'fast'"]
    assert json.loads(rows["raw"][0].as_py())["speed"] == "fast"


def test_an_identifier_too_long_for_a_float_stays_exact() -> None:
    rows, _ = table({"serial": 12345678901234567890})
    assert rows["serial"].to_pylist() == ["12345678901234567890"]


def test_not_a_number_is_no_value() -> None:
    rows, _ = metadata_table({"s": parse_sidecar(b'{"a": NaN, "b": Infinity, "c": 1}')}, EMPTY)
    assert rows.column_names == ["sample_id", "raw", "c"]


def test_columns_end_somewhere() -> None:
    every = sidecar_of({f"k{i:04d}": i for i in range(MAX_COLUMNS + 3)})
    rows, problems = metadata_table({"s": every}, EMPTY)
    assert rows.num_columns == MAX_COLUMNS + 2
    assert len(problems) == 3 and "no room" in problems[0].detail


def test_one_file_does_not_take_the_room_of_all_others() -> None:
    many = {f"a{i:04d}": i for i in range(MAX_OWN_COLUMNS + 1)}
    rows, problems = table(many, {"when": "2026-03-02"})
    assert rows.column_names == ["sample_id", "raw", "when"]
    assert problems == [f"s0 bad_sidecar: 201 values, more than {MAX_OWN_COLUMNS}"]
    assert json.loads(rows["raw"][0].as_py()) == many


def test_columns_of_most_images_come_first_where_there_is_no_room_for_all() -> None:
    odd = [{f"a{i}_{k:03d}": k for k in range(150)} for i in range(4)]
    usual = [{"weather": "rain", "when": "2026-03-02"}] * 3
    rows, problems = table(*odd, *usual)
    assert rows.num_columns == MAX_COLUMNS + 2
    assert rows["weather"].to_pylist() == [None] * 4 + ["rain"] * 3
    assert len(problems) == 600 + 2 - MAX_COLUMNS
    assert not [told for told in problems if "'w" in told]
    types = {name: {"number": 1} for one in odd for name in one} | {"weather": {"text": 3}}
    assert "weather" in metadata_schema(types, EMPTY).names


def test_the_time_of_capture_is_found_under_its_usual_names() -> None:
    assert capture_time(sidecar({"taken_at": "2026-03-02 10:00:00"})) == datetime(
        2026, 3, 2, 10, tzinfo=UTC
    )
    assert capture_time(sidecar({"captured_at": "soon"})) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=6), json_values, max_size=5), max_size=4))
def test_any_json_makes_a_table_with_every_text_kept(contents: list[dict[str, Any]]) -> None:
    texts = {f"s{i}": json.dumps(content).encode() for i, content in enumerate(contents)}
    sidecars = {name: parse_sidecar(text) for name, text in texts.items()}
    rows, _ = metadata_table(sidecars, EMPTY)
    assert rows["raw"].to_pylist() == [text.decode() for _, text in sorted(texts.items())]
    again, _ = metadata_table(dict(reversed(list(sidecars.items()))), EMPTY)
    assert rows.equals(again)
    # What the first batch decided, a second one of the same files keeps.
    second, problems = metadata_table(sidecars, rows.schema)
    assert second.select(sorted(second.column_names)).equals(rows.select(sorted(rows.column_names)))
    assert {p.detail[:7] for p in problems} <= {"several"}
