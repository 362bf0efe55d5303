"""Suspects in a lake: each label has a state, each flag its evidence, and both follow the lake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.labeling.trust.blobs import CLASSES, NOW, Blobs, answer, blobs, label, lake_of, loop_of
from tests.selection.small_lake import put
from visionloop.labeling.trust.labelled import read_labelled
from visionloop.labeling.trust.suspect_flags import TOO_FEW, judge_labels
from visionloop.lake import Lake
from visionloop.stages.monitor import monitor


@pytest.fixture
def made() -> Blobs:
    return blobs(200, 0.1)


def flags_of(lake: Lake) -> dict[str, dict[str, Any]]:
    rows = lake.read("flags", where="kind == 'label_suspect'").to_pylist()
    return {row["subject"]: row for row in rows}


def test_every_label_is_ok_flagged_or_unchecked(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, holdout=40, unlabelled=20)
    label(lake, made, range(185, 190), origin="model")
    boxes = [{"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1, "label": "cat", "scores": None}]
    put(
        lake,
        "labels",
        [{"sample_id": made.ids[195], "task": "detection", "boxes": boxes, "created_at": NOW}],
    )
    found = judge_labels(lake, loop_of(tmp_path), "base", lake.version(), NOW)
    counts = found.counts()
    assert counts["in"] == counts["ok"] + counts["flagged"] + counts["unchecked"] == 186
    assert found.unchecked == {"automatic": 5, "objects": 1}
    wrong = {s for s, bad in zip(made.ids[:180], made.wrong[:180], strict=True) if bad}
    flagged = set(found.flags["subject"].to_pylist())
    assert len(flagged & wrong) / len(wrong) > 0.8 and len(flagged & wrong) / len(flagged) > 0.8
    assert flagged & set(made.ids[:40])  # of the holdout too


def test_a_flag_tells_what_it_follows_from(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made, holdout=40)
    found = judge_labels(lake, loop_of(tmp_path), "base", lake.version(), NOW)
    for row in found.flags.to_pylist():
        evidence = json.loads(row["evidence"])
        given = CLASSES[made.given[made.ids.index(row["subject"])]]
        assert evidence["label"] == given != evidence["suggested"]
        assert row["score"] < row["threshold"] <= 1
        assert row["threshold"] == pytest.approx(
            evidence["posterior"][evidence["suggested"]], abs=1e-3
        )
        assert evidence["told_by"]["embeddings"] == "base"
        assert evidence["votes"] == {"import": given}
        assert (row["subject"], row["stage"]) == (row["subject"], "monitor")


def test_without_embeddings_or_with_few_labels_all_is_unchecked(
    tmp_path: Path, made: Blobs
) -> None:
    lake = lake_of(tmp_path, made, unlabelled=180)
    few = judge_labels(lake, loop_of(tmp_path), "base", lake.version(), NOW)
    assert few.counts() == {"in": 20, "ok": 0, "flagged": 0, "unchecked": 20}
    blind = judge_labels(lake, loop_of(tmp_path), "", lake.version(), NOW)
    assert blind.unchecked == {"without an embedding": 20}


def test_the_holdout_teaches_nobody(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path / "a", made, holdout=60)
    other = Blobs(made.ids, made.x, made.truth, made.given.copy())
    other.given[:60] = (other.given[:60] + 1) % 3
    changed = lake_of(tmp_path / "b", other, holdout=60)
    p = [
        read_labelled(one, loop_of(root), "base").probabilities
        for one, root in ((lake, tmp_path / "a"), (changed, tmp_path / "b"))
    ]
    assert (p[0] == p[1]).all()


def test_earlier_models_have_their_say_where_they_did_not_train(
    tmp_path: Path, made: Blobs
) -> None:
    lake = lake_of(tmp_path, made)
    rng = np.random.default_rng(0)
    common = {"arm": "loop", "classes": CLASSES, "uri": "", "trained_at": NOW}
    put(
        lake,
        "experiments",
        [{"model_id": "m1", "state": "in_service", "training_set": "t1", **common}],
    )
    put(
        lake,
        "training_sets",
        [
            {"training_set": "t1", "sample_id": s, "label": "cat", "arm": "loop", "position": i}
            for i, s in enumerate(made.ids[:100])
        ],
    )
    known = 0.01 + 0.97 * np.eye(3)[made.truth]
    # Of what it trained on it says nonsense: who listens to that is misled.
    known[:100] = rng.dirichlet(np.ones(3), 100)
    put(
        lake,
        "predictions",
        [
            {"sample_id": s, "model_id": "m1", "probabilities": [float(v) for v in row]}
            for s, row in zip(made.ids, known, strict=True)
        ],
    )
    found = read_labelled(lake, loop_of(tmp_path), "base")
    assert found.told_by["earlier_models"] == 100
    assert found.told_by["earlier_models_weight"] > 0
    plain = read_labelled(lake_of(tmp_path / "plain", made), loop_of(tmp_path / "plain"), "base")
    order = np.argsort(made.ids)
    first, late = order < 100, order >= 100
    assert (found.probabilities[first] == plain.probabilities[first]).all()
    assert (found.probabilities[late] != plain.probabilities[late]).any()


def test_people_who_confirm_a_label_take_its_flag_away(tmp_path: Path, made: Blobs) -> None:
    lake = lake_of(tmp_path, made)
    loop = loop_of(tmp_path)
    monitor(config=loop.text(), lake=loop.lake)
    first = min(flags_of(lake).values(), key=lambda row: -row["score"])
    given = json.loads(first["evidence"])["label"]
    answer(lake, *((first["subject"], name, given) for name in ("ann", "bob", "eve", "dan")))
    monitor(config=loop.text(), lake=loop.lake)
    assert first["subject"] not in flags_of(lake)


def test_the_monitor_judges_labels_once_and_again_when_they_change(
    tmp_path: Path, made: Blobs
) -> None:
    lake = lake_of(tmp_path, made)
    loop = loop_of(tmp_path)
    monitor(config=loop.text(), lake=loop.lake)
    first = flags_of(lake)
    assert first
    monitor(config=loop.text(), lake=loop.lake)
    assert flags_of(lake) == first  # as they were written, by the run that wrote them
    # Somebody corrects what was flagged: a later round's label counts.
    right = Blobs(made.ids, made.x, made.truth, made.truth)
    label(lake, right, [made.ids.index(s) for s in first], round_id="0001")
    monitor(config=loop.text(), lake=loop.lake)
    left = flags_of(lake)
    assert len(left) < len(first) / 2
    runs = lake.stage_runs(where="stage == 'monitor'").sort_by("sequence").to_pylist()
    told = json.loads(runs[-1]["outputs"])["labels"]
    assert told["in"] == 200 == told["ok"] + told["flagged"] + told["unchecked"]
    assert told["flagged"] == len(left)


def test_the_page_of_the_monitor_shows_the_labels(tmp_path: Path, made: Blobs) -> None:
    lake_of(tmp_path, made)
    loop = loop_of(tmp_path)
    page: Any = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    monitor(config=loop.text(), lake=loop.lake, page=page)
    text = (tmp_path / "page.md").read_text()
    assert "## Labels" in text and "labels are doubted" in text
    assert "of all are wrong, as these models tell" in text


def test_models_that_know_too_little_doubt_no_label_and_say_so(tmp_path: Path) -> None:
    # Pictures that tell nothing of the class: two labels in three are contradicted, by chance.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype(np.float32)
    truth = rng.integers(0, 3, 200)
    noise = Blobs([f"{i:064x}" for i in range(200)], x, truth, truth.copy())
    lake = lake_of(tmp_path, noise)
    found = judge_labels(lake, loop_of(tmp_path), "base", lake.version(), NOW)
    assert found.flags.num_rows == 0
    assert found.counts() == {"in": 200, "ok": 0, "flagged": 0, "unchecked": 200}
    page: Any = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    monitor(config=loop_of(tmp_path).text(), lake=loop_of(tmp_path).lake, page=page)
    assert "how many are wrong cannot be told" in (tmp_path / "page.md").read_text()


def test_a_doubt_that_stands_keeps_its_time_and_one_count_is_told_everywhere(
    tmp_path: Path, made: Blobs
) -> None:
    lake = lake_of(tmp_path, made)
    loop = loop_of(tmp_path)
    page: Any = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    monitor(config=loop.text(), lake=loop.lake, page=page)
    first = flags_of(lake)
    told = json.loads(lake.stage_runs(where="stage == 'monitor'")["outputs"][0].as_py())["labels"]
    assert told["flagged"] == len(first)
    text = (tmp_path / "page.md").read_text()
    assert f"| flagged | {len(first)} |" in text and f"{len(first)} labels are doubted" in text
    assert f"| Labels in doubt | {len(first)} |" in text
    label(lake, made, range(195, 200), round_id="0001")  # the same labels again
    monitor(config=loop.text(), lake=loop.lake)
    for subject, row in flags_of(lake).items():
        if subject in first:
            assert row["flagged_at"] == first[subject]["flagged_at"]


def test_a_class_that_a_handful_of_labels_taught_casts_no_doubt(tmp_path: Path) -> None:
    made = blobs(200, 0.05, spread=0.15)
    owls = np.flatnonzero(made.given == CLASSES.index("owl"))
    # All but twelve labelled owls are of the holdout, which teaches nobody.
    order = [*owls[12:], *(i for i in range(200) if i not in set(owls[12:]))]
    mixed = Blobs([made.ids[i] for i in order], made.x[order], made.truth[order], made.given[order])
    lake = lake_of(tmp_path, mixed, holdout=len(owls) - 12)
    found = judge_labels(lake, loop_of(tmp_path), "base", lake.version(), NOW)
    assert found.unchecked[TOO_FEW] >= len(owls)
    assert found.flags.num_rows
    for row in found.flags.to_pylist():
        evidence = json.loads(row["evidence"])
        assert "owl" not in (evidence["label"], evidence["suggested"])
    counts = found.counts()
    assert counts["in"] == 200 == counts["ok"] + counts["flagged"] + counts["unchecked"]
