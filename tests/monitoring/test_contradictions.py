"""Times, places and sizes that contradict each other are told of the picture that is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.contradictions import flag_contradictions
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.jumps import great_circle, jumps
from visionloop.monitoring.sample_config import SampleThresholds
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
BERLIN, PARIS, SYDNEY = (52.52, 13.405), (48.8566, 2.3522), (-33.8688, 151.2093)
SPEED = SampleThresholds().gps_speed_above


def flagged(rows: list[dict[str, Any]], new: set[str] | None = None) -> list[dict[str, Any]]:
    """Return the flags of samples: id, hours after noon, place, camera, further metadata."""
    samples = [
        {"sample_id": row["id"], "width": 640, "height": 480, "ingested_at": NOW}
        | {
            "captured_at": None
            if row.get("hours") is None
            else NOON + timedelta(hours=row["hours"])
        }
        for row in rows
    ]
    metadata = [
        {"sample_id": row["id"], "raw": "{}", "camera": row.get("camera", "a")}
        | {"latitude": row["place"][0], "longitude": row["place"][1]}
        | row.get("more", {})
        for row in rows
    ]
    findings = Findings(NOW)
    flag_contradictions(
        pa.Table.from_pylist(metadata),
        pa.Table.from_pylist(samples, schema=arrow_schema("samples")),
        {row["id"] for row in rows} if new is None else new,
        SampleThresholds(),
        findings,
    )
    return [{**flag, "evidence": json.loads(flag["evidence"])} for flag in findings.flags]


def test_distances_are_those_of_the_globe() -> None:
    ends = np.array([BERLIN, (0.0, 179.5), (90.0, 0.0)]).T
    others = np.array([PARIS, (0.0, -179.5), (-90.0, 77.0)]).T
    found = great_circle(*ends, *others)
    assert found[0] == pytest.approx(878, abs=2)  # what maps say
    assert found[1] == pytest.approx(111.2, abs=0.1)  # across the date line
    assert found[2] == pytest.approx(20015, abs=1)  # from pole to pole


def test_the_picture_out_of_line_is_flagged_and_not_its_neighbours() -> None:
    way = [{"id": f"s{i}", "hours": i, "place": BERLIN} for i in range(6)]
    way[3]["place"] = SYDNEY
    (flag,) = flagged(way)
    assert (flag["kind"], flag["subject"]) == ("gps_jump", "s3")
    evidence = flag["evidence"]
    assert evidence["images"] == ["s3", "s2"] and evidence["unit"] == "km/h"
    assert evidence["km"] == pytest.approx(16_090, rel=0.01) and evidence["hours"] == 1
    assert flag["score"] == pytest.approx(evidence["km"], abs=1) and flag["threshold"] == SPEED


def test_several_wrong_places_in_a_row_and_one_at_either_end_are_found() -> None:
    way = [{"id": f"s{i:02d}", "hours": i, "place": BERLIN} for i in range(12)]
    for i in (0, 4, 5, 11):
        way[i]["place"] = SYDNEY
    assert {flag["subject"] for flag in flagged(way)} == {"s00", "s04", "s05", "s11"}


def test_a_wrong_place_after_a_pause_is_flagged_and_not_the_right_ones_that_follow() -> None:
    way = [{"id": f"a{i}", "hours": i / 10, "place": BERLIN} for i in range(20)]
    way += [{"id": "wrong", "hours": 24, "place": SYDNEY}]
    way += [{"id": f"b{i}", "hours": 24.1 + i / 10, "place": BERLIN} for i in range(9)]
    way += [{"id": "late", "hours": 400, "place": BERLIN}]
    assert [flag["subject"] for flag in flagged(way)] == ["wrong"]
    (flag,) = flagged(way)
    assert flag["score"] > SPEED and flag["evidence"]["images"] == ["wrong", "b0"]


def test_what_can_be_reached_is_not_flagged_with_what_cannot() -> None:
    way = [{"id": f"a{i}", "hours": i / 10, "place": BERLIN} for i in range(20)]
    way += [{"id": f"s{i}", "hours": 2 + i / 10, "place": SYDNEY} for i in range(9)]
    way += [{"id": "late", "hours": 400, "place": SYDNEY}]
    found = flagged(way)
    assert {flag["subject"] for flag in found} == {f"s{i}" for i in range(9)}
    assert all(flag["score"] > SPEED for flag in found)


def test_a_flight_a_train_and_two_cameras_at_two_places_are_no_jump() -> None:
    way = [
        {"id": "a0", "hours": 0, "place": BERLIN},
        {"id": "a1", "hours": 1.5, "place": PARIS},
        {"id": "a2", "hours": 30, "place": SYDNEY},
        {"id": "b0", "hours": 0, "place": SYDNEY, "camera": "b"},
        {"id": "b1", "hours": 1, "place": SYDNEY, "camera": "b"},
    ]
    assert flagged(way) == []


def test_pictures_of_one_second_that_a_receiver_scatters_are_no_jump() -> None:
    near = (BERLIN[0] + 0.005, BERLIN[1])  # some 550 metres
    assert not flagged(
        [{"id": "x", "hours": 0, "place": BERLIN}, {"id": "y", "hours": 0, "place": near}]
    )
    assert flagged(
        [{"id": "x", "hours": 0, "place": BERLIN}, {"id": "y", "hours": 0, "place": PARIS}]
    )


def test_an_earlier_sample_is_compared_with_and_not_flagged_again() -> None:
    way = [{"id": f"s{i}", "hours": i, "place": BERLIN} for i in range(4)]
    way[1]["place"] = SYDNEY
    assert flagged(way, new={"s3"}) == []
    way[3]["place"] = PARIS
    way[3]["hours"] = 2.1
    assert [flag["subject"] for flag in flagged(way, new={"s3"})] == ["s3"]


def test_a_picture_with_an_impossible_place_is_told_of_once() -> None:
    way = [{"id": f"s{i}", "hours": i, "place": BERLIN} for i in range(4)]
    way[2]["place"] = (0.0, 0.0)
    way[3]["place"] = (91.0, 8.0)
    kinds = {flag["subject"]: flag["kind"] for flag in flagged(way)}
    assert kinds == {"s2": "impossible_place", "s3": "impossible_place"}


def test_a_size_that_the_picture_does_not_have_is_flagged_and_a_turned_one_is_not() -> None:
    sizes = [(640, 480), (480, 640), (1280, 960), (None, 3)]
    rows = [
        {"id": f"s{i}", "place": BERLIN, "more": {"width": w, "height": h}}
        for i, (w, h) in enumerate(sizes)
    ]
    (flag,) = flagged(rows)
    assert (flag["kind"], flag["subject"], flag["score"]) == ("size_conflict", "s2", 1.0)


@pytest.mark.parametrize(
    ("hours", "kind"),
    [
        (0, None),
        (21 * 24 + 23, None),
        (21 * 24 + 25, "future_time"),
        (-40 * 365 * 24, "implausible_time"),
    ],
)
def test_a_time_is_held_against_the_ingest_and_against_the_first_plausible_date(
    hours: float, kind: str | None
) -> None:
    found = flagged([{"id": "s", "hours": hours, "place": BERLIN}])
    assert [flag["kind"] for flag in found] == ([kind] if kind else [])
    assert all(flag["score"] > flag["threshold"] for flag in found)


def test_sidecars_that_contradict_each_other_are_flagged_in_the_lake(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    rng = np.random.Generator(np.random.PCG64(1))
    for i in range(6):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(bucket / f"{i}.png")
        latitude, longitude = SYDNEY if i == 3 else BERLIN
        told = {"camera": "gate", "captured_at": f"2024-05-01T{8 + i:02d}:00:00Z"}
        told |= {"gps": {"lat": latitude, "lon": longitude}, "width": 64 if i == 5 else 32}
        (bucket / f"{i}.png.json").write_text(json.dumps({**told, "height": 32}))
    config = json.dumps(
        {
            "name": "test",
            "lake": str(tmp_path / "lake"),
            "sources": [{"uri": str(bucket), "metadata": "sidecar"}],
            "labeling": {"provider": "csv"},
            "classes": ["a"],
        }
    )
    ingest(config=config, open_round=True)
    monitor(config=config)
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    names = {row["sample_id"]: row["uri"][-5:] for row in lake.read("samples").to_pylist()}
    found = {
        (row["kind"], names[row["subject"]])
        for row in lake.read("flags").to_pylist()
        if row["kind"] in ("gps_jump", "size_conflict", "impossible_place", "future_time")
    }
    assert found == {("gps_jump", "3.png"), ("size_conflict", "5.png")}
    states = lake.read("checks")["state"].to_pylist()
    assert len(states) == 6 and states.count("flagged") >= 2


@given(
    st.lists(st.sampled_from([BERLIN, PARIS, SYDNEY]), min_size=2, max_size=8),
    st.floats(0.1, 30),
)
def test_what_stays_in_line_can_be_travelled(
    places: list[tuple[float, float]], step: float
) -> None:
    hours = step * np.arange(len(places))
    lat, lon = np.array(places).T
    out = {jump.row for jump in jumps(hours, lat, lon, speed=SPEED, apart=1.0)}
    line = [i for i in range(len(places)) if i not in out]
    assert line
    km = great_circle(lat[line[:-1]], lon[line[:-1]], lat[line[1:]], lon[line[1:]])
    assert bool((km <= np.maximum(1.0, SPEED * np.diff(hours[line]))).all())


def plainly(rows: list[dict[str, Any]], new: set[str]) -> set[tuple[str, str]]:
    """Return what is wrong with samples, one at a time: times, places and sizes."""
    wrong = set()
    for row in rows:
        if row["id"] not in new:
            continue
        told, captured = row["more"], row["hours"]
        at = None if captured is None else NOON + timedelta(hours=captured)
        if at is not None and at - NOW > timedelta(hours=24):
            wrong.add((row["id"], "future_time"))
        elif at is not None and at < datetime(1990, 1, 1, tzinfo=UTC):
            wrong.add((row["id"], "implausible_time"))
        north, east = row["place"]
        off = any(
            value is not None and not abs(value) <= reach
            for value, reach in ((north, 90), (east, 180))
        )
        if off or (north == 0 and east == 0):
            wrong.add((row["id"], "impossible_place"))
        w, h = told["width"], told["height"]
        sound = all(side is not None and side > 0 for side in (w, h))
        if sound and (w, h) not in ((640, 480), (480, 640)):
            wrong.add((row["id"], "size_conflict"))
    return wrong


HOURS = st.sampled_from([None, 0, 24 * 22, 24 * 21 + 24, 24 * 21 + 24.001, -24 * 365 * 60])
DEGREES = st.sampled_from([None, 0.0, 45.0, -90.0, 90.5, 180.0, -181.0, float("nan")])
SIDES = st.sampled_from([None, 640, 480, 0, -3, 2**53 + 1])


@given(
    st.lists(st.tuples(HOURS, DEGREES, DEGREES, SIDES, SIDES, st.booleans()), min_size=1),
)
def test_all_at_once_are_judged_as_one_at_a_time(made: list[tuple[Any, ...]]) -> None:
    rows = [
        {"id": f"s{i}", "hours": hours, "place": (north, east), "camera": str(i)}
        | {"more": {"width": w, "height": h}}
        for i, (hours, north, east, w, h, _) in enumerate(made)
    ]
    new = {f"s{i}" for i, one in enumerate(made) if one[-1]}
    found = {(flag["subject"], flag["kind"]) for flag in flagged(rows, new)}
    assert found == plainly(rows, new)
