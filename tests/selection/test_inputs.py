"""What a selection knows of a sample: its harvested scores, those of similar ones, sets of ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import CLASSES, deploy, fill, label, put, vectors
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.selection.alike import nearest_few, value_of_similar
from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.explain import explain
from visionloop.selection.inputs import score_of
from visionloop.selection.material import read_material
from visionloop.selection.pool import Pool
from visionloop.selection.record import select_from_lake, select_material


def custom(input_: dict[str, Any], strategy: str = "WEIGHTS", **more: Any) -> SelectionConfig:
    line = {"input": input_, "strategy": {"type": strategy}}
    return parse_selection_config({"strategies": [line], "random_share": 0, **more})


def test_the_value_of_similar_images_equals_its_formula() -> None:
    x, known = vectors(30, seed=1), vectors(9, seed=2)
    values = np.random.default_rng(3).random(9)
    distance = np.linalg.norm(x[:, None].astype(np.float64) - known[None], axis=2)
    nearest = np.sort(distance, axis=1)[:, :5]
    weight = np.exp(-nearest / nearest.mean(axis=1, keepdims=True))
    of_nearest = values[np.argsort(distance, axis=1)[:, :5]]
    expected = (weight * of_nearest).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(value_of_similar(x, known, values), expected, atol=1e-5)


def test_of_equally_near_rows_the_first_counts() -> None:
    known = np.repeat(vectors(3, seed=2), 40, axis=0)
    who, distance = nearest_few(vectors(5, seed=1), known, 4)
    assert all((row == row[0] + np.arange(4)).all() and row[0] % 40 == 0 for row in who)
    assert (distance[:, 0] == distance[:, 3]).all()


def harvested() -> Pool:
    """Return two groups of images; production hesitated on one image of the first group."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(2, 8), 20, axis=0) + 0.1 * rng.normal(size=(40, 8))
    scores = np.full(40, np.nan)
    scores[0], scores[39] = 0.9, 0.1
    return Pool.build(
        [f"{i:04d}" for i in range(40)], embeddings={"e": x}, scores={"deployed_margin": scores}
    )


def test_an_image_that_was_not_harvested_takes_the_score_of_similar_ones() -> None:
    pool = harvested()
    similar = score_of(pool, "similar_deployed_margin")
    assert np.isnan(similar[[0, 39]]).all(), "they have scores of their own"
    assert similar[1:20].min() > similar[20:39].max()
    selection = select(pool, custom({"type": "SCORES", "score": "deployed_margin"}), 10)
    first, second = selection.picks[:2]
    assert first.sample_id == "0000"
    assert first.objectives == {"deployed_margin": 0.9, "similar_deployed_margin": None}
    assert second.objectives["deployed_margin"] is None
    assert second.objectives["similar_deployed_margin"] == pytest.approx(similar[1:20].max())
    assert all(int(s) < 20 for s in selection.sample_ids)
    assert "hesitated between two classes on it" in explain(first.objectives)
    assert "hesitated between two classes on similar images" in explain(second.objectives)


def test_the_default_listens_to_production_where_it_struggles() -> None:
    selection = select(harvested(), parse_selection_config({"random_share": 0}), 6)
    assert set(selection.strengths) == {"coverage", "deployed_margin", "similar_deployed_margin"}


def query(*items: str, **more: Any) -> SelectionConfig:
    return custom({"type": "EMBEDDINGS", "query": list(items), **more}, "SIMILARITY")


def most_similar(names: list[str], queries: list[int], n: int) -> set[str]:
    x = vectors(33)  # the 30 of the pool and 3 of the holdout
    distance = np.linalg.norm(x[:30, None] - x[queries][None], axis=2).min(axis=1)
    distance[2] = np.inf  # a copy of a holdout sample
    distance[[row for row in queries if row < 30]] = np.inf
    return {names[i] for i in np.argsort(distance, kind="stable")[:n]}


def test_more_is_found_like_a_set_that_the_lake_names(lake: Lake) -> None:
    names = fill(lake)
    label(lake, names[7:9])
    put(
        lake,
        "flags",
        [
            {"subject": names[11], "subject_type": "sample", "kind": "it's blurred"},
            {"subject": "f" * 64, "subject_type": "sample", "kind": "it's blurred"},
        ],
    )
    put(lake, "training_sets", [{"training_set": "t1", "sample_id": names[12], "label": "cat"}])
    put(lake, "selections", [{"sample_id": names[20], "rank": 0, "arm": "selected"}])

    def found(*items: str, **more: Any) -> set[str]:
        return set(select_from_lake(lake, query(*items, **more), 3).selection.sample_ids)

    def expected(*rows: int) -> set[str]:
        left = most_similar(names, list(rows), 30)
        order = [s for s in _by_distance(names, list(rows)) if s in left]
        gone = {names[7], names[8], names[20], *(names[row] for row in rows)}
        return set([s for s in order if s not in gone][:3])

    assert found("flag:it's blurred") == expected(11)
    assert found("training_set:t1") == expected(12)
    assert found("round:0000") == expected(20)
    assert found("label:cat") == expected(7, 8)
    assert found(names[3], "flag:it's blurred") == expected(3, 11)
    tagged = custom(
        {"type": "EMBEDDINGS", "tag_name": "it's blurred", "dataset_id": "0" * 24}, "SIMILARITY"
    )
    selection = select_from_lake(lake, tagged, 3).selection
    assert set(selection.sample_ids) == expected(11)
    assert "dataset_id_without_effect" in selection.flags
    for nothing in ("flag:dark", "round:0009", "label:dog"):
        with pytest.raises(InputError, match=f"`{nothing}` names no sample"):
            found(nothing)


def _by_distance(names: list[str], queries: list[int]) -> list[str]:
    x = vectors(33)
    distance = np.linalg.norm(x[:30, None] - x[queries][None], axis=2).min(axis=1)
    return [names[i] for i in np.argsort(distance, kind="stable")]


def test_more_is_found_like_the_samples_of_a_file(lake: Lake, tmp_path: Path) -> None:
    names = fill(lake)
    plain, table = tmp_path / "ids.txt", tmp_path / "ids.csv"
    plain.write_text(f"{names[4]}\n\n{names[5]}\n")
    table.write_text(f"why,sample_id\nodd,{names[4]}\nodd,{names[5]}\n")
    expected = most_similar(names, [4, 5], 4)
    for file in (plain, table):
        assert (
            set(select_from_lake(lake, query(f"file:{file}"), 4).selection.sample_ids) == expected
        )
    with pytest.raises(InputError, match=r"cannot read the sample ids of a query.*missing\.txt"):
        select_from_lake(lake, query(f"file:{tmp_path}/missing.txt"), 4)


def test_a_sample_can_be_named_by_the_beginning_of_its_id(lake: Lake) -> None:
    names = fill(lake)
    found = select_from_lake(lake, query(names[4][:16]), 4).selection.sample_ids
    assert set(found) == most_similar(names, [4], 4)
    with pytest.raises(InputError, match="`nope`, nor one that begins so"):
        select_from_lake(lake, query("nope"), 4)
    with pytest.raises(InputError, match="`000` begins the ids of 10 samples") as refused:
        select_from_lake(lake, query("000"), 4)
    assert refused.value.remedy == "Give more of the id"
    missing = "e" * 64
    with pytest.raises(InputError, match="1 samples have no embedding in the space 'pixels': e"):
        select_from_lake(lake, query(missing), 4)


def test_a_query_that_is_not_there_is_answered_with_what_is(lake: Lake) -> None:
    names = fill(lake)
    label(lake, names[7:9])
    put(lake, "flags", [{"subject": names[1], "subject_type": "sample", "kind": "likely_wrong"}])
    put(lake, "selections", [{"sample_id": names[20], "rank": 0, "arm": "selected"}])

    def remedy(item: str) -> str:
        with pytest.raises(InputError) as refused:
            select_from_lake(lake, query(item), 3)
        return refused.value.remedy

    assert remedy("flag:likly_wrong").startswith("Did you mean `flag:likely_wrong`?")
    assert "Labels of the lake: cat" in remedy("label:zebra")
    assert "Rounds with a selection of the lake: 0000." in remedy("round:9")
    assert "Saved selections of the lake: none." in remedy("selection:mine")
    assert "Did you mean `label:cat`?" in remedy("lable:cat")
    assert "label:…" in remedy("cls:cat")


def test_samples_of_the_holdout_can_be_looked_for_and_are_not_selected(lake: Lake) -> None:
    names = fill(lake)
    put(lake, "flags", [{"subject": f"f{0:04d}" + "0" * 59, "kind": "hard"}])
    chosen = set(select_from_lake(lake, query("flag:hard"), 4).selection.sample_ids)
    assert chosen == most_similar(names, [30], 4)


def test_the_newest_models_of_a_loop_are_a_committee(lake: Lake) -> None:
    names = fill(lake)
    deploy(lake, names)
    score = {"type": "SCORES", "score": "consensus_divergence"}
    material = read_material(lake, custom(score))
    assert material.pool.committee is not None
    assert material.pool.committee.shape == (2, 30, 3)
    assert read_material(lake, parse_selection_config({})).pool.committee is None
    p = np.random.default_rng(3).dirichlet(np.ones(3), size=30)
    both = np.stack([p, p[::-1]])  # what `deploy` let the two models predict
    mean = both.mean(axis=0)
    divergence = (both * np.log(both / mean)).sum(axis=2).mean(axis=0)
    divergence[2] = -1
    selection = select_material(material, 3)
    assert list(selection.sample_ids) == [
        names[i] for i in np.argsort(-divergence.round(6), kind="stable")[:3]
    ]


def test_boxes_of_the_lake_reach_the_selection(lake: Lake) -> None:
    names = fill(lake, n=8, holdout=0)
    deploy(lake, [])
    box = {"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0, "label": "cat"}
    rows = [
        {
            "sample_id": name,
            "model_id": "m1",
            "boxes": [{**box, "scores": [0.9 - i / 10, 0.1 + i / 10, 0.0]}] if i < 5 else [],
        }
        for i, name in enumerate(names[:7])
    ]
    put(lake, "predictions", rows)
    material = read_material(lake, custom({"type": "SCORES", "score": "margin"}))
    found = material.pool.detections
    assert found is not None
    assert found.without_boxes.tolist() == [False] * 5 + [True, True, False]
    assert found.predicted.tolist() == [True] * 7 + [False]
    assert material.pool.classes == tuple(CLASSES)
    assert select_material(material, 1).sample_ids == (names[4],)


def test_a_line_can_name_a_space_of_its_own(lake: Lake) -> None:
    names = fill(lake)
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("model_m1", names[:25], vectors(25, seed=8))
        run.commit(outputs={"space": "pixels", "model_space": "model_m1"})
    config = custom({"type": "EMBEDDINGS", "space": "model_m1"}, "DIVERSITY")
    selection = select_from_lake(lake, config, 5).selection
    assert selection.space == "pixels", "what is shown of each pick stays the loop's own space"
    assert selection.removed["not embedded in model_m1"] == 5
    x = vectors(25, seed=8).astype(np.float64)
    expected = [0]
    for _ in range(4):
        distance = np.linalg.norm(x[:, None] - x[expected][None], axis=2).min(axis=1)
        distance[2] = -1
        expected.append(int(distance.argmax()))
    assert list(selection.sample_ids) == [names[i] for i in expected]
    with pytest.raises(InputError, match=r"no embeddings of the space 'other'"):
        select_from_lake(lake, custom({"type": "EMBEDDINGS", "space": "other"}, "DIVERSITY"), 5)
