"""Filters, orders and pages over an index, held against the same in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from visionloop.errors import InputError
from visionloop.labeling.answers import latest_answers, latest_boxes
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.current_labels import (
    LABEL_COLUMNS,
    OBJECTS,
    current_labels,
    current_objects,
)
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.live.asking import Asked, Finder, asked_of, facets
from visionloop.monitoring.live.filters import Filter
from visionloop.monitoring.live.index import Index

START = datetime(2026, 11, 20, tzinfo=UTC)


def index_of(**columns: Any) -> Index:
    """Return an index of columns, those of a dictionary type given as lists of text."""
    held = {}
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        if pa.types.is_string(array.type) and name != "sample_id":
            array = array.dictionary_encode()
        held[name] = pa.chunked_array([array])
    return Index("v", None, pa.table(held))


def found(index: Index, query: str) -> list[int]:
    asked = asked_of(QueryParams(query), index)
    return [int(row) for row in Finder().find(index, asked).rows]


COMPARE = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "gt": lambda a, b: a > b,
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.just(0.5)), min_size=1, max_size=20),
    st.sampled_from(sorted(COMPARE)),
    st.sampled_from(["-2", "0", "0.5", "3"]),
    st.sampled_from([pa.float32(), pa.float64()]),
)
def test_numbers_compare_as_in_python_and_what_is_missing_equals_nothing(
    values: list[float | None], op: str, told: str, kind: pa.DataType
) -> None:
    index = index_of(score=pa.array([None if v is None else float(v) for v in values], kind))
    wanted = [
        place
        for place, value in enumerate(values)
        if (op == "ne" if value is None else COMPARE[op](value, float(told)))
    ]
    assert found(index, f"column=score&op={op}&value={told}&size=500") == wanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.sampled_from(["", "Cat", "dog", "a cat"])), max_size=20),
    st.sampled_from([*COMPARE, "contains", "empty", "filled"]),
    st.booleans(),
)
def test_texts_compare_alike_whether_they_repeat_or_not(
    values: list[str | None], op: str, repeats: bool
) -> None:
    array = pa.array(values, pa.string())
    index = Index(
        "v",
        None,
        pa.table({"t": pa.chunked_array([array.dictionary_encode() if repeats else array])}),
    )
    told = "cat" if op == "contains" else "Cat"

    def meets(value: str | None) -> bool:
        if not value or op in ("empty", "filled"):
            return op in ("empty", "ne") if not value else op == "filled"
        return told in value.casefold() if op == "contains" else bool(COMPARE[op](value, told))

    wanted = [place for place, value in enumerate(values) if meets(value)]
    assert found(index, f"column=t&op={op}&value={told}&size=500") == wanted


def test_a_day_is_all_of_it_and_later_means_after_it() -> None:
    times = [START + timedelta(hours=hours) for hours in (-1, 0, 23, 24, 30)]
    index = index_of(at=pa.array(times, pa.timestamp("us", tz="UTC")))
    assert found(index, "column=at&op=eq&value=2026-11-20") == [1, 2]
    assert found(index, "column=at&op=gt&value=2026-11-20") == [3, 4]
    assert found(index, "column=at&op=lt&value=2026-11-20") == [0]
    assert found(index, "column=at&op=eq&value=2026-11-20T23:00:00") == [2]
    assert found(index, "column=at&op=eq&value=2026-11-21T01:00:00%2B02:00") == [2]


def test_a_number_is_found_by_what_is_told_of_it() -> None:
    index = index_of(confidence=pa.array([0.9, 0.1, 0.30000001192092896], pa.float32()))
    assert found(index, "column=confidence&op=eq&value=0.9") == [0]
    assert found(index, "column=confidence&op=eq&value=0.3") == [2]


def test_a_set_has_each_of_its_names() -> None:
    index = index_of(flags=["blurred, dark", None, "dark", "dark_matter"])
    assert found(index, "column=flags&op=eq&value=dark") == [0, 2]
    assert found(index, "column=flags&op=ne&value=dark") == [1, 3]
    assert found(index, "column=flags&op=contains&value=DARK") == [0, 2, 3]
    assert found(index, "column=flags&op=empty&value=") == [1]
    assert facets(index, None, ["flags"], 9)["flags"] == [
        ("dark", 2), ("blurred", 1), ("dark_matter", 1)
    ]  # fmt: skip


def test_a_kind_of_flag_is_found_by_its_name_and_by_its_title() -> None:
    index = index_of(flags=["blurred, from_a_newer_version", None, "dark"])
    assert found(index, "column=flags&op=eq&value=outlier") == []
    assert found(index, "column=flags&op=eq&value=from_a_newer_version") == [0]
    title = KINDS["blurred"].title.upper()
    assert found(index, f"column=flags&op=eq&value={title}") == [0]
    with pytest.raises(InputError, match=r"no kind of flag `blured` \(did you mean `blurred`\?\)"):
        found(index, "column=flags&op=ne&value=blured")


@pytest.mark.parametrize("value", ["2", "0002", "round 2", "Round 2"])
def test_a_round_is_found_as_it_is_read(value: str) -> None:
    index = index_of(round=["0001", "0002", None], picked_in=["0002", None, None])
    assert found(index, f"column=round&op=eq&value={value}") == [1]
    assert found(index, f"column=picked_in&op=eq&value={value}") == [0]
    assert index.words("round", "0002") == "round 2"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("column=nope&op=eq&value=1", "score"),
        ("column=score&op=contains&value=1", "lt (<)"),
        ("column=score&op=eq&value=many", "'many' is no number"),
        ("column=score&op=lt&value=nan", "is no number"),
        ("column=at&op=lt&value=yesterday", "2026-11-23"),
        ("column=score&op=eq&value=", "without a value"),
        ("column=score&op=eq", "column is given 1 time"),
        ("column=wet&op=eq&value=perhaps", "neither yes nor no"),
        ("sort=nope", "there is no column"),
        ("page=0", "is no page"),
        ("size=501", "is no size"),
        ("order=up", "asc or desc"),
        ("&".join(["column=score&op=eq&value=1"] * 21), "21 filters"),
    ],
)
def test_a_filter_that_cannot_be_read_says_what_can(query: str, said: str) -> None:
    index = index_of(score=[1.0], wet=[True], at=pa.array([START], pa.timestamp("us", tz="UTC")))
    with pytest.raises(InputError) as told:
        asked_of(QueryParams(query), index)
    assert said in str(told.value)


def test_an_address_says_all_that_was_asked() -> None:
    index = index_of(camera=["a&b=c", "ü #?"], score=[1.0, 2.0])
    asked = Asked(
        (Filter("camera", "eq", "a&b=c"), Filter("score", "filled")), "score", True, 3, 24
    )
    assert asked_of(QueryParams(asked.address()), index) == asked
    assert asked_of(QueryParams(Asked().address()), index) == Asked()


def test_pages_of_200_000_images_hold_each_image_once_in_order() -> None:
    n = 200_000
    rng = np.random.Generator(np.random.PCG64(1))
    scores = rng.integers(0, 1000, n).astype(np.float64)
    scores[::7] = np.nan
    index = index_of(
        score=pa.array(scores, from_pandas=True), camera=rng.choice(["north", "south"], n)
    )
    finder, seen = Finder(), []
    asked = asked_of(
        QueryParams("sort=score&order=desc&column=camera&op=eq&value=north&size=500"), index
    )
    pages = finder.find(index, asked).pages
    for page in range(1, pages + 1):
        rows = finder.find(index, Asked(asked.filters, "score", True, page, 500)).rows
        seen += rows.tolist()
    north = np.flatnonzero(index.table["camera"].to_numpy(zero_copy_only=False) == "north")
    keys = [(np.isnan(scores[row]), -np.nan_to_num(scores[row]), row) for row in north]
    assert seen == [row for _, _, row in sorted(keys)]
    assert finder.find(index, Asked(page=10**9)).page == -(-n // 60)


WHO = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from([None, "cat", "dog"]),
    st.sampled_from(["oracle", "model", "skipped", "conflict", "withdrawn", "import"]),
    st.sampled_from(["", "0000", "0001", "0010"]),
    st.integers(0, 3),
    st.sampled_from(["", "ann", "model"]),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from([None, "classification", "detection"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WHO, max_size=12))
def test_what_counts_is_what_the_rows_say_that_are_read_one_by_one(
    said: list[tuple[Any, ...]],
) -> None:
    names = ["sample_id", "label", "origin", "round_id", "created_at", "annotator"]
    names += [OBJECTS, "task"]
    rows = [dict(zip(names, one, strict=True)) for one in said]
    for row in rows:
        row["created_at"] = START + timedelta(hours=row["created_at"])
        row["boxes"] = None if row[OBJECTS] is None else [{}] * row[OBJECTS]
        row["n_annotations"] = None if row["origin"] == "import" else 1
        if row["origin"] in ("skipped", "conflict", "withdrawn"):
            row["label"] = None
    schema = arrow_schema("labels")
    kept = pa.schema([schema.field(n) for n in LABEL_COLUMNS] + [pa.field(OBJECTS, pa.int32())])
    table = pa.Table.from_pylist(rows, schema=kept)
    wanted = {sample: row["label"] for sample, row in latest_answers(rows).items()}
    got = current_labels(table).to_pylist()
    assert {row["sample_id"]: row["label"] for row in got} == wanted
    assert len(got) == len(wanted)
    told = ("sample_id", "label", "origin", "round_id", "created_at", "n_annotations")
    whole = {row["sample_id"]: row for row in current_labels(table, told).to_pylist()}
    assert whole == {
        sample: {name: row[name] for name in told} for sample, row in latest_answers(rows).items()
    }
    boxed = {sample: len(row["boxes"]) for sample, row in latest_boxes(rows).items()}
    counted = current_objects(table).to_pylist()
    assert {row["sample_id"]: row[OBJECTS] for row in counted} == boxed
    assert len(counted) == len(boxed)
