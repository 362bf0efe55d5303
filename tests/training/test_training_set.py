from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionloop.errors import InputError
from visionloop.labeling.answers import SKIPPED, is_skip, latest_labels, skipped_samples
from visionloop.training.control_arm import control_parameters, random_picks
from visionloop.training.parameters import TrainingConfig
from visionloop.training.trainer import _fits
from visionloop.training.training_set import (
    TrainingSet,
    class_names,
    model_id_for,
    trainable,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def label(sample_id: str, name: str, minutes: int, task: str = "classification") -> dict[str, Any]:
    at = NOW + timedelta(minutes=minutes)
    return {
        "sample_id": sample_id,
        "task": task,
        "label": name,
        "annotator": "a",
        "created_at": at,
    }


def test_a_skipped_sample_has_no_label_until_one_is_given() -> None:
    skipped = label("s", "", 3) | {"label": None, "origin": SKIPPED}
    rows = [label("s", "cat", 1), skipped, label("t", "owl", 0)]
    assert latest_labels(rows, "classification") == {"t": "owl"}
    assert skipped_samples(rows) == {"s"}
    again = [*rows, label("s", "dog", 4)]
    assert latest_labels(again)["s"] == "dog" and skipped_samples(again) == set()
    assert is_skip("-") and is_skip("Skip") and not is_skip("skipper")
    assert not is_skip("skip", ["car", "skip"])


def test_a_correction_wins_over_what_it_corrects() -> None:
    rows = [label("s", "dog", 5), label("s", "cat", 1), label("t", "owl", 0)]
    assert latest_labels(rows, "classification") == {"s": "dog", "t": "owl"}
    assert latest_labels([label("s", "dog", 0, task="detection")], "classification") == {}


@given(
    st.sets(st.text("abcdef", min_size=3, max_size=6), max_size=40),
    st.sets(st.text("ghij", min_size=3, max_size=6), max_size=40),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_each_rounds_random_set_contains_the_one_before(
    pool: set[str], added: set[str], n: int, more: int
) -> None:
    first = random_picks(pool, n, previous=[], seed=1)
    second = random_picks(pool | added, n + more, previous=first, seed=1)
    assert len(first) == min(n, len(pool))
    assert len(second) == len(set(second)) == min(n + more, len(pool | added))
    assert second[: len(first)] == first


def test_random_picks_depend_on_the_seed_and_on_no_order() -> None:
    pool = [f"{i:02d}" for i in range(50)]
    assert random_picks(pool, 10, previous=[], seed=0) == random_picks(
        reversed(pool), 10, previous=[], seed=0
    )
    assert random_picks(pool, 10, previous=[], seed=0) != random_picks(
        pool, 10, previous=[], seed=1
    )


def test_a_random_pick_that_is_no_longer_allowed_is_replaced() -> None:
    first = random_picks("abcdefgh", 4, previous=[], seed=0)
    left = set("abcdefgh") - {first[0]}
    second = random_picks(left, 4, previous=first, seed=0)
    assert first[0] not in second and second[:3] == first[1:] and len(second) == 4


def test_a_label_of_an_unknown_class_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"'catt' \(did you mean `cat`\?\)"):
        class_names(["cat", "dog"], [], ["cat", "catt"])
    with pytest.raises(InputError, match="the classes of the first model"):
        class_names([], ["cat", "dog"], ["owl"])
    with pytest.raises(InputError, match="needs two classes"):
        class_names([], [], ["cat"])


def test_classes_come_from_the_configuration_then_the_first_model_then_the_labels() -> None:
    assert class_names(["dog", "cat"], ["x", "y"], ["cat"]) == ["dog", "cat"]
    assert class_names([], ["dog", "cat"], ["cat"]) == ["dog", "cat"]
    assert class_names([], [], ["dog", "cat", "dog"]) == ["cat", "dog"]


def test_copies_of_the_holdout_are_not_trained_on() -> None:
    def sample(name: str, split: str, fingerprint: bytes | None) -> dict[str, Any]:
        return {"sample_id": name, "split": split, "fingerprint": fingerprint}

    held = bytes(range(32))
    near = bytes([held[0] ^ 0b111]) + held[1:]
    rows = [
        sample("holdout", "holdout", held),
        sample("copy", "pool", near),
        sample("other", "pool", bytes(reversed(range(32)))),
        sample("blank", "pool", None),
    ]
    assert trainable(rows, 10) == {"other", "blank"}
    assert trainable(rows, 2) == {"copy", "other", "blank"}
    assert trainable(rows, -1) == {"copy", "other", "blank"}
    equal = sample("equal", "pool", rows[0]["fingerprint"])
    assert trainable([*rows, equal], -1) == {"copy", "other", "blank"}
    assert trainable(rows[1:], 10) == {"copy", "other", "blank"}


def test_the_models_id_names_its_set_and_its_parameters() -> None:
    rows = (("a", "cat"), ("b", "dog"))
    training_set, parameters = TrainingSet("loop", rows), TrainingConfig()

    def made(
        one: TrainingSet = training_set,
        settings: TrainingConfig = parameters,
        round_id: str = "0001",
    ) -> str:
        return model_id_for(round_id, one, ["cat", "dog"], settings)

    assert made() == made()
    assert made().startswith("m0001-")
    assert made(settings=parameters.model_copy(update={"control_arm": True})) == made()
    others = {
        made(),
        made(TrainingSet("loop", (("a", "dog"), ("b", "dog")))),
        made(TrainingSet("random", rows)),
        made(settings=parameters.model_copy(update={"epochs": 31})),
        made(round_id="0002"),
    }
    assert len(others) == 5
    assert made(TrainingSet("random", rows)).startswith("r0001-")


def test_a_training_set_is_a_table_in_its_order() -> None:
    one = TrainingSet("loop", (("b", "dog"), ("a", "cat")))
    table = one.table()
    assert table["sample_id"].to_pylist() == ["b", "a"]
    assert table["position"].to_pylist() == [0, 1]
    assert set(table["training_set"].to_pylist()) == {one.digest}
    assert one.without(["b"]).rows == (("a", "cat"),)
    assert one.without(["b"]).digest != one.digest


def test_neither_arm_learns_from_a_copy_of_what_it_has() -> None:
    prints: dict[str, bytes | None] = {
        f"{i:02d}{c}": hashlib.sha256(bytes([i])).digest()[:31] + bytes([c == "b"])
        for i in range(20)
        for c in "ab"
    }
    drawn = random_picks(prints, 30, previous=["03a"], seed=0, fingerprints=prints, copy_distance=4)
    assert len(drawn) == 20 and {name[:2] for name in drawn} == {name[:2] for name in prints}
    assert "03a" in drawn and "03b" not in drawn
    assert len(random_picks(prints, 30, previous=["03a"], seed=0)) == 30


@pytest.mark.parametrize("n", [1999, 2000])
def test_both_arms_fit_the_same_number_of_rows(n: int) -> None:
    labels = np.arange(n, dtype=np.int64) % 10
    loop = TrainingConfig()
    fitted = [len(_fits(labels, p)[1][-1]) for p in (loop, control_parameters(loop, n))]
    assert fitted == ([1999, 1999] if n == 1999 else [1800, 1800])
