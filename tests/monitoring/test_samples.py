"""Every file that comes in ends in one state, and a flag says why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visionloop.demo.world import KINDS, World
from visionloop.errors import UnreadableMedia
from visionloop.lake.schemas import arrow_schema
from visionloop.media.inspect import inspect
from visionloop.media.likeness import grey
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.samples import Checked, check_samples
from visionloop.monitoring.subjects import STATES
from visionloop.monitoring.unjudged import Unjudged, with_earlier
from visionloop.monitoring.vector_parts import ReadVectors

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CONFIG = MonitoringConfig()


class Intake:
    """Files as an ingest leaves them in the lake's tables, round by round."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.samples: dict[str, dict[str, Any]] = {}
        self.metadata: list[dict[str, Any]] = []
        self.checks = arrow_schema("checks").empty_table()
        self.bytes: dict[str, bytes] = {}

    def add(self, uri: str, data: bytes, *, generation: str = "1", round_id: str = "0000") -> str:
        row = {"uri": uri, "generation": generation, "round_id": round_id, "found_at": NOW}
        self.bytes[uri] = data
        try:
            found = inspect(data)
        except UnreadableMedia as error:
            self.files.append({**row, "state": "unreadable", "reason": error.reason})
            return ""
        self.files.append({**row, "state": "ok", "sample_id": found.sample_id})
        measures = {
            name: getattr(found, name)
            for name in ("fingerprint", "sharpness", "brightness", "contrast", "captured_at")
        }
        self.samples.setdefault(
            found.sample_id,
            {"sample_id": found.sample_id, "uri": uri, "source": "bucket", **measures},
        )
        return found.sample_id

    def check(
        self,
        config: MonitoringConfig = CONFIG,
        *,
        pixels: bool = True,
        read_vectors: ReadVectors = lambda: (),
    ) -> Checked:
        checked = check_samples(
            pa.Table.from_pylist(self.files, schema=arrow_schema("files")),
            pa.Table.from_pylist(list(self.samples.values()), schema=arrow_schema("samples")),
            pa.Table.from_pylist(self.metadata) if self.metadata else None,
            self.checks,
            config,
            now=NOW,
            read_greys=self._greys if pixels else lambda places: {},
            read_vectors=read_vectors,
        )
        self.checks = pa.concat_tables(
            [self.checks.select(checked.checks.column_names), checked.checks]
        )
        return checked

    def _greys(self, places: Mapping[str, str]) -> Mapping[str, np.ndarray]:
        return {one: grey(inspect(self.bytes[uri]).thumbnail) for one, uri in places.items()}


def flags(checked: Checked, kind: str) -> list[dict[str, Any]]:
    rows = [row for row in checked.flags.to_pylist() if row["kind"] == kind]
    return [{**row, "evidence": json.loads(row["evidence"])} for row in rows]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), seed=3)


def png(seed: int) -> bytes:
    import io

    from PIL import Image

    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 255, (6, 6), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def test_what_the_world_planted_is_found_over_rounds(world: World) -> None:
    intake = Intake()
    right = dict.fromkeys(KINDS, 0)
    found = dict.fromkeys(KINDS, 0)
    planted = dict.fromkeys(KINDS, 0)
    for number in range(2):
        batch = world._batch(number)
        for picture in sorted(batch.files, key=lambda p: p.name):
            intake.add(picture.name, picture.data, round_id=f"{number:04d}")
        checked = intake.check()
        assert checked.n_in == len(batch.files)
        assert checked.states["unchecked"] == 0
        for kind in KINDS:
            names = {picture.name for picture in batch.planted[kind]}
            planted[kind] += len(names)
            for flag in flags(checked, kind):
                found[kind] += 1
                # A copy and its original are one pair: whichever came second by name is flagged.
                pair = {
                    flag["subject"],
                    intake.samples.get(flag["subject"], {}).get("uri"),
                    flag["evidence"].get("original"),
                    flag["evidence"].get("original_uri"),
                }
                right[kind] += bool(pair & names)
    for kind in ("unreadable", "exact_duplicate"):
        assert right[kind] == found[kind] == planted[kind]
    for kind in ("near_duplicate", "blurred", "dark"):
        assert right[kind] >= 0.9 * planted[kind], f"recall of {kind}"
        assert right[kind] >= 0.9 * found[kind], f"precision of {kind}"


def test_states_add_up_and_a_second_check_finds_nothing_left(world: World) -> None:
    intake = Intake()
    for picture in world._batch(1).files:
        intake.add(picture.name, picture.data)
    first = intake.check()
    assert first.n_in == len(intake.files) == first.checks.num_rows
    assert first.n_in == sum(first.states.values())
    second = intake.check()
    assert (second.n_in, second.flags.num_rows) == (0, 0)


def test_the_same_bytes_found_again_at_their_own_place_are_no_duplicate() -> None:
    intake = Intake()
    intake.add("a.png", png(1))
    intake.check()
    intake.add("a.png", png(1), generation="2")
    assert intake.check().states == dict.fromkeys(STATES, 0) | {"ok": 1}


def test_an_exact_copy_is_a_flagged_file_that_names_its_original() -> None:
    intake = Intake()
    sample = intake.add("b.png", png(1))
    intake.check()
    # It sorts before the original and came later.
    intake.add("a.png", png(1), round_id="0001")
    checked = intake.check()
    (flag,) = flags(checked, "exact_duplicate")
    assert (flag["subject"], flag["subject_type"]) == ("a.png", "file")
    assert flag["evidence"]["original"] == "b.png"
    assert flag["evidence"]["images"] == [sample]
    assert checked.states["flagged"] == 1


def test_a_sample_whose_bytes_were_copied_into_the_lake_is_still_one_file() -> None:
    intake = Intake()
    sample = intake.add("bucket/a.png", png(1))
    intake.samples[sample]["uri"] = "lake/media/a.png"
    intake.bytes["lake/media/a.png"] = png(1)
    assert intake.check().states["ok"] == 1


def test_a_file_that_could_not_be_had_is_unchecked_until_it_can() -> None:
    intake = Intake()
    missing = {"uri": "a.png", "generation": "1", "state": "skipped", "round_id": "0000"}
    intake.files.append(missing)
    assert intake.check().states["unchecked"] == 1
    intake.add("a.png", png(1))
    checked = intake.check()
    assert (checked.n_in, checked.states["ok"]) == (1, 1)


def test_an_unreadable_file_is_counted_with_its_reason_and_again_when_it_changed() -> None:
    intake = Intake()
    intake.add("a.png", b"")
    (flag,) = flags(intake.check(), "unreadable")
    assert flag["evidence"]["reason"] == "empty"
    intake.add("a.png", b"not an image either", generation="2")
    assert intake.check().states["unreadable"] == 1


def test_a_note_or_a_sidecar_left_behind_is_no_picture_and_no_broken_one() -> None:
    intake = Intake()
    intake.add("README.txt", b"what these are")
    intake.add("gone.jpg.json", b'{"camera": "north"}')
    intake.add("a.jpg", b"what these are")
    checked = intake.check()
    assert (checked.states["unreadable"], checked.states["no_picture"], checked.n_in) == (1, 2, 3)
    assert [flag["subject"] for flag in flags(checked, "unreadable")] == ["a.jpg"]


def test_a_sample_without_measures_stays_unchecked() -> None:
    intake = Intake()
    sample = intake.add("a.png", png(1))
    intake.samples[sample]["sharpness"] = None
    checked = intake.check()
    assert checked.states == dict.fromkeys(STATES, 0) | {"unchecked": 1}
    assert checked.checks.num_rows == 0


def test_a_near_copy_of_an_earlier_round_is_flagged_and_not_its_original() -> None:
    import io

    from PIL import Image

    intake = Intake()
    intake.add("z.png", png(1))
    intake.check()
    out = io.BytesIO()
    Image.open(io.BytesIO(png(1))).save(out, "JPEG", quality=70)
    copy = intake.add("a.jpg", out.getvalue(), round_id="0001")
    (flag,) = flags(intake.check(), "near_duplicate")
    assert flag["subject"] == copy
    assert flag["evidence"]["original_uri"] == "z.png"
    assert flag["score"] >= flag["threshold"] == CONFIG.near_duplicate_likeness


def test_without_pixels_the_fingerprint_decides_and_the_flag_says_so() -> None:
    import io

    from PIL import Image

    intake = Intake()
    intake.add("a.png", png(1))
    out = io.BytesIO()
    Image.open(io.BytesIO(png(1))).save(out, "JPEG", quality=70)
    intake.add("b.jpg", out.getvalue())
    (flag,) = flags(intake.check(pixels=False), "near_duplicate")
    assert "unconfirmed" in flag["evidence"]


def test_metadata_that_cannot_be_true_is_flagged_by_what_is_wrong_with_it() -> None:
    intake = Intake()
    ids = [intake.add(f"{i}.png", png(i)) for i in range(6)]
    intake.samples[ids[0]]["captured_at"] = NOW + timedelta(days=400)
    intake.samples[ids[4]]["captured_at"] = datetime(1980, 1, 1, tzinfo=UTC)
    intake.metadata = [
        {"sample_id": ids[1], "raw": "{}", "latitude": 91.0, "longitude": 8.0},
        {"sample_id": ids[2], "raw": "{}", "latitude": 45.0, "longitude": 8.0},
        {"sample_id": ids[3], "raw": '{"a": 1}', "latitude": None, "longitude": None},
        {"sample_id": ids[5], "raw": "{}", "latitude": 0.0, "longitude": 0.0},
    ]
    checked = intake.check()
    found = {
        (flag["subject"], flag["kind"]): flag["evidence"]["problem"]
        for flag in map(with_evidence, checked.flags.to_pylist())
    }
    assert found == {
        (ids[0], "future_time"): "captured in the future",
        (ids[1], "impossible_place"): "latitude lies off the globe",
        (ids[4], "implausible_time"): "captured before there was a camera",
        (ids[5], "impossible_place"): "latitude and longitude are exactly 0",
    }
    assert checked.states["ok"] == 2


def with_evidence(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "evidence": json.loads(row["evidence"])}


def test_every_flag_says_what_it_was_held_against_in_which_unit_and_shows_pictures(
    world: World,
) -> None:
    intake = Intake()
    for picture in world._batch(0).files:
        intake.add(picture.name, picture.data)
    for row in map(with_evidence, intake.check().flags.to_pylist()):
        assert row["evidence"]["reference"], row
        assert isinstance(row["evidence"]["unit"], str), row
        if row["subject_type"] == "sample":
            assert row["evidence"]["images"][0] == row["subject"], row


def test_black_pictures_are_copies_by_their_fingerprints_and_the_flag_says_so() -> None:
    import io

    from PIL import Image

    intake = Intake()
    for name, side in (("a.png", 48), ("b.png", 64)):
        out = io.BytesIO()
        Image.new("RGB", (side, side)).save(out, "PNG")
        intake.add(name, out.getvalue())
    (flag,) = flags(intake.check(), "near_duplicate")
    assert (flag["score"], flag["threshold"]) == (0.0, 0.0)
    assert "fingerprints differ" in flag["evidence"]["unit"]
    assert "flat" in flag["evidence"]["unconfirmed"]


def test_flat_pictures_of_other_tones_are_no_copies_of_each_other() -> None:
    import io

    from PIL import Image

    intake = Intake()
    black, white, red, dim = (0, 0, 0), (255, 255, 255), (255, 0, 0), (76, 76, 76)
    told = {"black": black, "dim": dim, "red": red, "white": white}
    again = {"black_again": (1, 1, 1), "red_again": (254, 1, 0), "white_again": (254, 254, 255)}
    for i, (name, colour) in enumerate({**told, **again}.items()):
        out = io.BytesIO()
        Image.new("RGB", (48 + i, 48), colour).save(out, "PNG")
        sample = intake.add(f"{i}_{name}.png", out.getvalue())
        intake.samples[sample]["saturation"] = inspect(out.getvalue()).saturation
    pairs = {
        (intake.samples[flag["subject"]]["uri"], flag["evidence"]["original_uri"])
        for flag in flags(intake.check(), "near_duplicate")
    }
    assert pairs == {
        ("4_black_again.png", "0_black.png"),
        ("5_red_again.png", "2_red.png"),
        ("6_white_again.png", "3_white.png"),
    }


def test_what_gets_no_check_is_new_to_every_look_and_so_never_one_of_the_earlier_pictures() -> None:
    intake = Intake()
    ids = [intake.add(f"{seed}.png", png(seed)) for seed in range(5)]
    for bare in ids[:3]:
        intake.samples[bare]["fingerprint"] = None  # of a lake whose ingest took no measures
    with_vector = [*ids[1:4]]  # two of the three bare ones, and one that gets a check
    vectors = np.eye(3, 4, dtype=np.float32)
    told: tuple[Unjudged, ...] = ()
    looks = []
    for _ in range(4):
        checked = intake.check(read_vectors=lambda: [(pa.array(with_vector), vectors)])
        assert checked.states["unchecked"] == 3
        told = with_earlier(checked.not_judged, told)
        looks.append([(o.n, o.earlier, o.again) for o in told if o.kinds == ("outlier",)])
    assert looks[0] == [(3, False, 2), (2, False, 1)]
    assert looks[1:] == [[(2, False, 2), (1, False, 1), (2, True, 0)]] * 3
