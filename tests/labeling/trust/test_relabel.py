"""Asking again: the budget is split on one scale, within its limits, the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labeling.trust.blobs import CLASSES, NOW, Blobs, answer, blobs, label, lake_of, loop_of
from tests.selection.small_lake import put
from visionloop.labeling.trust.relabel import MOST_TIMES, Split, split_budget
from visionloop.labeling.trust.splitting import budget_for_new
from visionloop.lake import Lake
from visionloop.selection.config import parse_selection_config


def split(lake: Lake, root: Path, n: int, **trust: object) -> Split:
    loop = loop_of(root, relabel="activelab", **trust)
    return split_budget(lake, loop, lake.version(), n, round_id="0001")


@pytest.fixture
def made() -> Blobs:
    return blobs(260, 0.15)


def test_without_relabelling_all_is_new_and_nothing_is_read(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "none"), loop="blobs")
    found = split_budget(lake, loop_of(tmp_path), "", 20, round_id="0001")
    assert found.n_new == 20 and found.rows.num_rows == 0
    assert not (tmp_path / "none").exists()


def test_what_is_asked_again_is_mostly_wrong(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    found = split(lake, tmp_path, 30)
    rows = found.rows.to_pylist()
    assert 0 < len(rows) <= 15 and found.n_new == 30 - len(rows)
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    assert [row["score"] for row in rows] == sorted(row["score"] for row in rows)
    wrong = {s for s, bad in zip(made.ids, made.wrong, strict=True) if bad}
    assert sum(row["sample_id"] in wrong for row in rows) / len(rows) > 0.7
    assert all(row["label"] in CLASSES and row["suggested"] in CLASSES for row in rows)
    assert {row["sample_id"] for row in rows} <= set(made.ids[:160])


def test_clean_labels_leave_the_budget_to_new_samples(tmp_path: Path) -> None:
    made = blobs(260, 0.0, spread=0.2)
    lake = lake_of(tmp_path, made, unlabelled=100)
    assert split(lake, tmp_path, 30).rows.num_rows <= 3


@pytest.mark.parametrize("share,most", [(0.0, 0), (0.1, 3), (1.0, 29)])
def test_no_more_than_the_configured_share_is_asked_again_and_never_all(
    tmp_path: Path, made: Blobs, share: float, most: int
) -> None:
    lake = lake_of(tmp_path, made, unlabelled=0)
    found = split(lake, tmp_path, 30, max_relabel_share=share)
    assert found.rows.num_rows == most and found.n_new == 30 - most


def test_the_same_version_gives_the_same_split(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    one, other = split(lake, tmp_path, 30), split(lake, tmp_path, 30)
    assert one.rows.drop_columns(["selected_at"]).equals(other.rows.drop_columns(["selected_at"]))


def test_a_sample_that_was_asked_about_often_is_left_alone(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    first = split(lake, tmp_path, 30).rows.to_pylist()[0]["sample_id"]
    for number in range(MOST_TIMES):
        put(lake, "relabels", [{"sample_id": first, "rank": 0}], f"100{number}")
    assert first not in split(lake, tmp_path, 30).rows["sample_id"].to_pylist()


def test_answers_that_confirm_a_label_make_room_for_others(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=10)
    # Some that several people answered, so that it is known how good they are.
    several = [(i, name) for i in range(30, 70) for name in ("ann", "bob")]
    answer(lake, *((made.ids[i], name, CLASSES[made.truth[i]]) for i, name in several))
    first = split(lake, tmp_path, 30).rows.to_pylist()[0]
    answer(lake, *((first["sample_id"], name, first["label"]) for name in ("ann", "bob", "eve")))
    again = {row["sample_id"]: row["score"] for row in split(lake, tmp_path, 30).rows.to_pylist()}
    assert again
    assert again.get(first["sample_id"], 1.0) > first["score"]


def test_of_the_holdout_only_suspects_are_asked_again(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, holdout=60, unlabelled=60)
    found = split(lake, tmp_path, 100, max_relabel_share=1.0)
    frozen = set(made.ids[:60])
    wrong = {s for s, bad in zip(made.ids, made.wrong, strict=True) if bad}
    asked = frozen & set(found.rows["sample_id"].to_pylist())
    assert asked and found.told["of_the_holdout"] == len(asked)
    assert len(asked & wrong) / len(asked) > 0.8


def test_with_too_few_labels_nothing_is_doubted_and_it_is_said(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=240)
    found = split(lake, tmp_path, 30)
    assert found.n_new == 30 and "too little" in found.told["why"]


def test_automatic_labels_are_not_asked_about_again(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    first = split(lake, tmp_path, 30).rows.to_pylist()[0]["sample_id"]
    own = blobs(260, 0.15)
    lake = lake_of(tmp_path / "other", own, unlabelled=260)
    where = own.ids.index(first)
    label(lake, own, [i for i in range(160) if i != where])
    label(lake, own, [where], origin="model")
    found = split(lake, tmp_path / "other", 30)
    assert found.rows.num_rows and first not in found.rows["sample_id"].to_pylist()


def test_a_selection_gets_what_is_left_of_the_budget(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    loop = loop_of(tmp_path, relabel="activelab")
    for data in ({"n_samples": 30}, {"proportion_samples": 0.1}):
        config = parse_selection_config(data, where="test")
        left, found = budget_for_new(lake, loop, config, lake.version(), "0001")
        assert found.rows.num_rows
        if config.proportion_samples is None:
            assert left.n_samples == 30 - found.rows.num_rows
        else:
            assert left.proportion_samples == pytest.approx(0.1 * found.n_new / 26)


def test_requests_and_picks_are_no_unlabelled_samples(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    before = split(lake, tmp_path, 200).told["unlabelled"]
    put(lake, "label_requests", [{"sample_id": made.ids[-1], "requested_at": NOW}])
    put(lake, "selections", [{"sample_id": made.ids[-2], "rank": 0}])
    flag = {"subject": made.ids[-3], "subject_type": "sample", "kind": "media_missing"}
    put(lake, "flags", [flag])
    assert split(lake, tmp_path, 200).told["unlabelled"] == before - 3 == 97


def test_what_was_taken_back_competes_as_new_again(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    before = split(lake, tmp_path, 200).told["unlabelled"]
    put(lake, "selections", [{"sample_id": made.ids[-1], "rank": 0}], "0000")
    request = {"sample_id": made.ids[-1], "requested_at": NOW, "recalled": True}
    put(lake, "label_requests", [request], "0000")
    assert split(lake, tmp_path, 200).told["unlabelled"] == before


def test_a_sample_whose_answer_is_waited_for_is_left_alone(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, unlabelled=100)
    doubted = split(lake, tmp_path, 30).rows["sample_id"].to_pylist()
    request = {"sample_id": doubted[0], "requested_at": NOW, "purpose": "relabel"}
    put(lake, "label_requests", [request], "0005")
    assert doubted[0] not in split(lake, tmp_path, 30).rows["sample_id"].to_pylist()
