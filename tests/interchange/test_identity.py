"""Import after export gives what was exported, in what each format can hold."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interchange.sets import pictures
from visionloop.errors import InputError
from visionloop.interchange.formats import FORMATS, WriteOptions, module_of, read_set, write_set
from visionloop.interchange.records import Annotated, Box, Problems

LETTERS = st.text("abzäñ語 -_%&'", min_size=1, max_size=8).map(str.strip).filter(bool)
CLASSES = st.lists(LETTERS, min_size=1, max_size=4, unique_by=str.casefold)
SCALARS = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(-1e6, 1e6, width=32),
    st.booleans(),
    st.text("ab,;\"'\nü ", max_size=8),
)
SCORES = st.one_of(st.none(), st.sampled_from([0.0, 0.125, 0.3, 0.99, 1.0]))


@st.composite
def boxes(draw: Any, width: int, height: int, classes: list[str]) -> Box:
    # To 1/16 pixel: annotations are, and relative formats are read to 1/10,000.
    x = sorted(draw(st.lists(st.integers(0, 16 * width), min_size=2, max_size=2, unique=True)))
    y = sorted(draw(st.lists(st.integers(0, 16 * height), min_size=2, max_size=2, unique=True)))
    return Box(
        x[0] / 16,
        y[0] / 16,
        x[1] / 16,
        y[1] / 16,
        draw(st.sampled_from(classes)),
        draw(SCORES),
        attributes=draw(st.sampled_from([{}, {"difficult": True}, {"pose": "Left"}])),
    )


@st.composite
def sets(draw: Any) -> list[Annotated]:
    classes = draw(CLASSES)
    stems = draw(
        st.lists(
            st.text("abcxyzäé0189-_ ", min_size=1, max_size=6).map(str.strip).filter(bool),
            max_size=5,
            unique_by=str.casefold,
        )
    )
    with_splits = draw(st.booleans())
    records = []
    for stem in stems:
        width, height = draw(st.integers(2, 40)), draw(st.integers(2, 40))
        objects = draw(
            st.one_of(st.none(), st.lists(boxes(width, height, classes), max_size=3).map(tuple))
        )
        labels = draw(st.lists(st.sampled_from(classes), max_size=2, unique=True).map(tuple))
        records.append(
            Annotated(
                f"{draw(st.sampled_from(['', 'sub/', 'ä b/']))}{stem}.png",
                width=width,
                height=height,
                # A set that names an image by other bytes than its own is refused; `hold_identity`
                # puts the digest of the file here.
                sample_id=draw(st.sampled_from(["", "known"])),
                labels=labels,
                score=draw(SCORES) if labels else None,
                boxes=objects,
                metadata=draw(st.dictionaries(st.sampled_from(["iso", "wetter"]), SCALARS)),
                split=draw(st.sampled_from(["train", "val"])) if with_splits else "",
            )
        )
    return records


def expected(name: str, record: Annotated) -> Annotated | None:
    """Return what a format holds of a record, as docs/formats.md says; None: it does not."""
    holds = module_of(name).HOLDS
    labels = record.labels[: holds.labels]
    objects = record.boxes if holds.boxes else None
    if not labels and objects is None:
        return None
    if name == "voc":
        # A box of one pixel is a point there.
        objects = tuple(
            b for b in objects or () if (b.x_min + 1, b.y_min + 1) != (b.x_max, b.y_max)
        )
    if name == "label_studio" and labels and not objects:
        objects = None
    if objects is not None:
        objects = tuple(
            replace(
                box,
                score=box.score if holds.score else None,
                attributes=box.attributes if holds.attributes else {},
            )
            for box in objects
        )
    score = record.score if holds.score and labels else None
    probabilities: tuple[float, ...] = ()
    if name == "lightly" and labels and score is None:
        score = 1.0  # it has to say how sure it is
    return replace(
        record,
        uri="",
        sample_id=record.sample_id if holds.sample_id else "",
        labels=labels,
        score=score,
        probabilities=probabilities,
        boxes=objects,
        metadata=record.metadata if holds.metadata else {},
        split=record.split if holds.split else "",
    )


def plain(record: Annotated) -> Annotated:
    return replace(record, uri="", origin="", probabilities=())


FORMS = [*((name, "csv") for name in FORMATS), ("table", "parquet")]


def examples(number: int) -> Any:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=number, deadline=None, derandomize=True, suppress_health_check=slow
    )


@pytest.mark.parametrize(("name", "kind"), FORMS)
@examples(15)
@given(records=sets())
def test_import_after_export_is_the_identity(
    name: str, kind: str, records: list[Annotated]
) -> None:
    hold_identity(name, kind, records)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "kind"), FORMS)
@examples(1000)
@given(records=sets())
def test_import_after_export_is_the_identity_for_long(
    name: str, kind: str, records: list[Annotated]
) -> None:
    hold_identity(name, kind, records)


def identified(record: Annotated, uri: str) -> Annotated:
    """Give a record that is to have an id the one of its bytes."""
    if not record.sample_id:
        return record
    data = Path(unquote(urlsplit(uri).path)).read_bytes()
    return replace(record, sample_id=hashlib.sha256(data).hexdigest())


def of_one_type(records: list[Annotated]) -> list[Annotated]:
    """Return records whose metadata is text where a name has values of several types."""
    types: dict[str, set[type]] = {}
    for record in records:
        for name, value in record.metadata.items():
            types.setdefault(name, set()).add(type(value))
    mixed = {name for name, of in types.items() if len(of) > 1 and of != {int, float}}

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value) if whole else value)

    return [
        replace(
            record,
            metadata={
                name: text(value) if name in mixed else value
                for name, value in record.metadata.items()
            },
        )
        for record in records
    ]


def hold_identity(name: str, kind: str, records: list[Annotated]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        places = pictures(folder / "media", records)
        records = [identified(record, places[record.file]) for record in records]
        given_records = [replace(record, uri=places[record.file]) for record in records]
        wanted = [e for record in records if (e := expected(name, record))]
        if name == "folders":
            wanted = [replace(record, width=0, height=0) for record in wanted]
        if name == "lightly":
            wanted = of_one_type(wanted)
        options = WriteOptions(table=kind)
        if records and not wanted:
            with pytest.raises(InputError, match="no image can be written"):
                write_set(name, given_records, str(folder / "set"), options=options)
            return
        summary = write_set(name, given_records, str(folder / "set"), options=options)
        assert summary["records"] == len(records)
        assert summary["written"] == len(wanted)
        assert summary["records"] == summary["written"] + sum(summary["left_out"].values())
        if not wanted:
            return
        problems = Problems()
        read = list(read_set(name, str(folder / "set"), problems=problems))
        assert sorted(map(plain, read), key=lambda r: r.file) == sorted(
            wanted, key=lambda r: r.file
        )
        told = set(problems.counts) - ({"empty_box"} if name == "voc" else set())
        assert not told, problems.lines()
        assert problems.boxes["found"] == problems.boxes["kept"] + problems.boxes["empty_box"]
        for record in read:
            if name != "webdataset":
                held = Path(record.uri.removeprefix("file://"))
                assert record.uri.startswith("file://") and held is not None
    finally:
        shutil.rmtree(folder)
