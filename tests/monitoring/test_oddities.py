"""Odd pictures among ordinary ones: each kind found, and none where all are so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.samples import Checked, check_samples

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(name: str, **changes: Any) -> dict[str, Any]:
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(name.encode()[-4:], "big")))
    ordinary = {
        "sample_id": name,
        "uri": f"file:///{name}.jpg",
        "source": "s",
        "width": 640,
        "height": 480,
        "fingerprint": rng.bytes(32),
        "sharpness": rng.uniform(0.02, 0.05),
        "brightness": rng.uniform(0.4, 0.6),
        "contrast": rng.uniform(0.15, 0.25),
        "entropy": rng.uniform(6.5, 7.5),
        "saturation": rng.uniform(0.1, 0.3),
        "pixels": rng.bytes(16),
        "attached": "",
    }
    return ordinary | changes


def checked(rows: Iterable[dict[str, Any]], **options: Any) -> Checked:
    return check_samples(
        pa.Table.from_pylist([], schema=arrow_schema("files")),
        pa.Table.from_pylist(list(rows), schema=arrow_schema("samples")),
        None,
        pa.Table.from_pylist([], schema=arrow_schema("checks")),
        MonitoringConfig(),
        now=NOW,
        **options,
    )


def flagged(found: Checked) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for flag in found.flags.to_pylist():
        kinds.setdefault(flag["subject"], set()).add(flag["kind"])
    return kinds


ODD = {
    "low_information": {"entropy": 0.9},
    "odd_aspect": {"width": 2000, "height": 300},
    "grey": {"saturation": 0.0},
    "tiny": {"width": 12, "height": 12},
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("ordinary", [0, 80])
def test_one_odd_picture_is_flagged_among_ordinary_ones_and_alone(kind: str, ordinary: int) -> None:
    rows = [row(f"{i:04d}") for i in range(ordinary)]
    assert flagged(checked([*rows, row("odd!", **ODD[kind])])) == {"odd!": {kind}}


@pytest.mark.parametrize("kind", ODD)
def test_where_all_are_so_none_is_odd_but_what_is_half_of_it(kind: str) -> None:
    rows = [row(f"{i:04d}", **ODD[kind]) for i in range(80)]
    assert flagged(checked(rows)) == {}
    more = {
        "low_information": {"entropy": 0.3},
        "odd_aspect": {"width": 2000, "height": 100},
        "tiny": {"width": 4, "height": 4},
    }
    if kind in more:
        assert flagged(checked([*rows, row("odd!", **more[kind])])) == {"odd!": {kind}}


def test_rows_of_an_older_lake_lack_the_measures_and_are_judged_by_the_others() -> None:
    rows = [row(f"{i:04d}") for i in range(60)]
    for held in rows:
        held |= {"entropy": None, "saturation": None, "pixels": None, "attached": None}
    rows.append(row("dark", brightness=0.01))
    assert flagged(checked(rows)) == {"dark": {"dark"}}


@pytest.mark.parametrize("attached", ["zip", "html", "program"])
def test_something_else_behind_a_picture_is_flagged(attached: str) -> None:
    found = checked([row("a"), row("b", attached=attached), row("c", attached="video")])
    assert flagged(found) == {"b": {"attached_data"}}


def test_equal_pixels_are_flagged_once_the_whole_pictures_are_compared() -> None:
    key = bytes(range(16))
    rows = [row(name, pixels=key) for name in ("a", "b", "c")]
    rows.append(row("wide", pixels=key, width=641))
    pictures = {name: np.zeros((2, 2, 3), np.uint8) for name in "ab"}
    pictures["c"] = np.ones((2, 2, 3), np.uint8)

    def read(uris: list[str]) -> Iterable[tuple[str, Any]]:
        return [(uri, pictures[uri[8:-4]]) for uri in uris]

    found = checked(rows, read_pixels=read)
    assert flagged(found) == {"b": {"pixel_duplicate"}}
    assert '"original": "a"' in found.flags["evidence"][0].as_py()
    unread = checked(rows)
    assert flagged(unread) == {"b": {"pixel_duplicate"}, "c": {"pixel_duplicate"}}
    assert all("unconfirmed" in text for text in unread.flags["evidence"].to_pylist())
