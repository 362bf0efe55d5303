"""The demo's world: real digits, the same every time, with faults that can be found."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from visionloop.demo.pictures import load_digits
from visionloop.demo.world import CAMERAS, KINDS, Picture, World
from visionloop.errors import UnreadableMedia
from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS, as_words, distances
from visionloop.media.inspect import inspect

ROUNDS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    for number in range(ROUNDS):
        world.deliver(number)
    return world


def arrived(world: World) -> dict[str, bytes]:
    paths = (p for p in world.bucket.rglob("*") if p.is_file() and p.suffix != ".json")
    return {str(p.relative_to(world.bucket)): p.read_bytes() for p in paths}


def sound(world: World, number: int) -> list[Picture]:
    planted = {p.name for kind in KINDS for p in world._batch(number).planted[kind]}
    return [p for p in world.delivered(number) if p.name not in planted]


def test_the_digits_are_scikit_learns() -> None:
    from sklearn import datasets

    pixels, targets = load_digits()
    found = datasets.load_digits()
    assert np.array_equal(pixels, found.images) and np.array_equal(targets, found.target)


def test_what_was_said_to_be_delivered_lies_in_the_bucket(world: World) -> None:
    files = arrived(world)
    expected = {p.name: p.data for n in range(ROUNDS) for p in world.delivered(n)}
    assert files == expected
    assert 900 <= len(world.delivered(0)) <= 1000
    assert all(180 <= len(world.delivered(n)) <= 260 for n in (1, 2))


def test_every_readable_picture_has_its_true_label(world: World) -> None:
    with world.truth.open() as file:
        truth = {row["sample_id"]: row["label"] for row in csv.DictReader(file)}
    readable = 0
    for data in arrived(world).values():
        try:
            inspect(data)
        except UnreadableMedia:
            assert hashlib.sha256(data).hexdigest() not in truth
            continue
        readable += 1
        assert truth[hashlib.sha256(data).hexdigest()] in world.classes
    assert readable > 1200
    assert set(Counter(truth.values())) == set(world.classes)


def test_the_same_seed_makes_the_same_world_and_delivering_twice_changes_nothing(
    world: World, tmp_path: Path
) -> None:
    again = World(tmp_path)
    assert [p.data for p in again.delivered(1)] == [p.data for p in world.delivered(1)]
    assert [p.data for p in again.traffic(1)] == [p.data for p in world.traffic(1)]
    other = World(tmp_path, seed=1)
    assert [p.data for p in other.delivered(1)] != [p.data for p in world.delivered(1)]
    before = {p: p.stat().st_mtime_ns for p in world.bucket.rglob("*.png")}
    world.deliver(0)
    assert {p: p.stat().st_mtime_ns for p in world.bucket.rglob("*.png")} == before


def test_the_counts_of_what_was_planted_are_true(world: World) -> None:
    seen: set[str] = set()
    for number in range(ROUNDS):
        planted = world.planted(number)
        assert set(planted) == set(KINDS) and min(planted.values()) >= 4
        unreadable = copies = 0
        for picture in world.delivered(number):
            try:
                inspect(picture.data)
            except UnreadableMedia:
                unreadable += 1
                continue
            copies += picture.sample_id in seen
            seen.add(picture.sample_id)
        assert unreadable == planted["unreadable"]
        assert copies == planted["exact_duplicate"]


def test_unreadable_files_are_of_several_kinds(world: World) -> None:
    reasons = Counter()
    for number in range(ROUNDS):
        for picture in world._batch(number).planted["unreadable"]:
            with pytest.raises(UnreadableMedia) as caught:
                inspect(picture.data)
            reasons[caught.value.reason] += 1
    assert {"truncated", "not_an_image", "empty"} <= set(reasons)


def test_blurred_and_dark_pictures_can_be_told_but_not_by_everything(world: World) -> None:
    found = [inspect(p.data) for p in sound(world, 0)]
    sharp = np.array([i.sharpness for i in found])
    bright = np.array([i.brightness for i in found])
    batch = world._batch(0).planted
    blurred = np.array([inspect(p.data).sharpness for p in batch["blurred"]])
    dark = np.array([inspect(p.data).brightness for p in batch["dark"]])
    assert (blurred < np.median(sharp) / 2).all()
    assert (dark < np.median(bright) / 2).all()
    # Night is darker than day, too: brightness alone, without a limit, would flag a third.
    assert (bright < np.median(bright) * 0.9).mean() > 0.1


def test_most_near_duplicates_can_be_told_from_look_alikes(world: World) -> None:
    originals = sound(world, 0)
    words = as_words([inspect(p.data).fingerprint for p in originals])
    copies = world._batch(0).planted["near_duplicate"]
    ids = {p.sample_id for p in originals}
    assert all(p.sample_id not in ids for p in copies)
    near = distances(as_words([inspect(p.data).fingerprint for p in copies]), words).min(axis=1)
    assert (near <= NEAR_DUPLICATE_BITS).mean() >= 0.75
    between = distances(words, words).astype(int) + 999 * np.eye(len(words), dtype=int)
    assert (between.min(axis=1) <= NEAR_DUPLICATE_BITS).mean() < 0.03


def test_metadata_is_true_of_the_picture_and_betrays_no_fault(world: World) -> None:
    by_light: dict[str, list[float]] = {}
    keys = set()
    for picture in world.delivered(0):
        sidecar = json.loads((world.bucket / f"{picture.name}.json").read_text())
        keys.add(tuple(sorted(sidecar)))
        assert sidecar["camera"] in {camera.name for camera in CAMERAS}
        assert picture.name.split("/")[1] == sidecar["camera"]
        if picture in sound(world, 0)[:200]:
            by_light.setdefault(sidecar["lighting"], []).append(inspect(picture.data).brightness)
    assert len(keys) == 1
    assert np.mean(by_light["day"]) > np.mean(by_light["dusk"]) > np.mean(by_light["night"])


def test_production_sees_unseen_pictures_of_which_some_arrive_next(world: World) -> None:
    seen = {p.sample_id for n in range(2) for p in world.delivered(n)}
    traffic = world.traffic(1)
    ids = {p.sample_id for p in traffic}
    assert not ids & seen
    coming = {p.sample_id for p in world.delivered(2)}
    assert 0.3 < len(ids & coming) / len(ids) < 0.7
    assert 300 <= len(traffic) <= 500
    with world.truth.open() as file:
        assert ids <= {row["sample_id"] for row in csv.DictReader(file)}


def test_the_digits_last_for_ten_rounds_and_then_nothing_arrives(world: World) -> None:
    sizes = [len(world.delivered(n)) for n in range(40)]
    assert all(sizes[:10]) and sizes[-1] == 0
    assert world.planted(39) == dict.fromkeys(KINDS, 0)
    assert world.traffic(39)
