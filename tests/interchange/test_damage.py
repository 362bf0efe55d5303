"""Whatever stands in a set, its reader goes on, or says in one sentence why it cannot."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import pictures
from visionloop.errors import InputError
from visionloop.interchange.formats import FORMATS, read_set, write_set
from visionloop.interchange.records import Annotated, Box, Problems

RECORDS = [
    Annotated("a.png", width=20, height=10, labels=("cat",), score=0.5, metadata={"iso": 100}),
    Annotated("b.png", width=20, height=10, boxes=(Box(1, 2, 3, 4, "dog", 0.5),)),
]
STRANGE: list[Any] = [
    None, True, -1, 0, 1e300, 10**30, "", "x", "nan", [], [[]], {}, {"a": []}, [None], "ä\x00", [1],
]  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each node of a JSON document."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items if isinstance(content, dict | list) else ():
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def with_strange(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = json.loads(json.dumps(content))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def outcome(name: str, folder: Path) -> str:
    problems = Problems()
    try:
        found = list(read_set(name, str(folder), problems=problems))
    except InputError as error:
        assert "\n" not in str(error)
        return "refused"
    kept = sum(len(record.boxes or ()) for record in found)
    assert problems.boxes["kept"] == kept
    assert problems.boxes["found"] * 2 == problems.boxes.total()
    for record in found:
        for box in record.boxes or ():
            assert 0 <= box.x_min < box.x_max and 0 <= box.y_min < box.y_max
            assert isinstance(box.label, str)
        assert all(isinstance(label, str) for label in record.labels)
        assert isinstance(record.file, str) and isinstance(record.width, int)
    return "read"


@pytest.fixture(scope="module")
def media() -> Iterator[list[Annotated]]:
    folder = Path(tempfile.mkdtemp())
    uris = pictures(folder, RECORDS)
    yield [replace(record, uri=uris[record.file]) for record in RECORDS]
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["coco", "label_studio", "fiftyone", "lightly"])
def test_any_value_anywhere_in_a_json_file_stops_no_reader(
    name: str, media: list[Annotated], tmp_path: Path
) -> None:
    write_set(name, media, str(tmp_path / "set"))
    draw = random.Random(0)
    told = set()
    for path in sorted((tmp_path / "set").rglob("*.json")):
        if path.name == "visionloop-export.json":
            continue
        text = path.read_text()
        content = json.loads(text)
        changes = [(place, value) for place in places(content) for value in STRANGE]
        for place, value in draw.sample(changes, min(60, len(changes))):
            path.write_text(json.dumps(with_strange(content, place, value)))
            told.add(outcome(name, tmp_path / "set"))
        for value in STRANGE:
            path.write_text(json.dumps(value))
            told.add(outcome(name, tmp_path / "set"))
        path.write_text(text)
    assert "read" in told


@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_flipped_bytes_stop_no_reader(
    name: str, media: list[Annotated], tmp_path: Path
) -> None:
    write_set(name, media, str(tmp_path / "set"))
    draw = random.Random(1)
    files = sorted(
        p for p in (tmp_path / "set").rglob("*")
        if p.is_file() and p.name != "visionloop-export.json"
    )  # fmt: skip
    told = set()
    # One file of a whole set may be beyond reading, one of many may not stop it.
    whole = {
        "data.yaml",
        "labels.json",
        "classification.json",
        "tasks.json",
        "instances.json",
        "annotations.csv",
    }
    for path in files:
        data = path.read_bytes()
        for _ in range(12):
            if draw.random() < 0.4:
                broken = data[: draw.randrange(len(data) + 1)]
            else:
                changed = bytearray(data or b" ")
                for _ in range(draw.randrange(1, 4)):
                    changed[draw.randrange(len(changed))] = draw.randrange(256)
                broken = bytes(changed)
            path.write_bytes(broken)
            said = outcome(name, tmp_path / "set")
            assert said == "read" or path.name in {*whole, "schema.json", "classes.txt"}
            told.add(said)
        path.write_bytes(data)
    assert "read" in told
