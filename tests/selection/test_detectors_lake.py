"""A lake of boxes: what is labelled, what the model in service finds, before there is a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import CLASSES, NOW, fill, ids, label, put
from visionloop.lake import Lake
from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.material import read_material
from visionloop.selection.record import select_from_lake, select_material

CORNER = {"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}


def detect(lake: Lake, names: list[str]) -> None:
    """Put a detector in service that found an object in each of these."""
    model = {"model_id": "m", "state": "in_service", "arm": "loop", "trained_at": NOW}
    put(lake, "experiments", [{**model, "classes": CLASSES}])
    rng = np.random.default_rng(0)
    put(lake, "predictions", [
        {"sample_id": s, "model_id": "m",
         "boxes": [{**CORNER, "label": None, "scores": rng.dirichlet(np.ones(3)).tolist()}]}
        for s in names
    ])  # fmt: skip


def mark(lake: Lake, objects: dict[str, list[str]]) -> None:
    """Label images with boxes, as an import of an annotated set does."""
    put(lake, "labels", [
        {"sample_id": s, "task": "detection", "origin": "import", "created_at": NOW,
         "boxes": [{**CORNER, "label": name, "scores": []} for name in found]}
        for s, found in objects.items()
    ])  # fmt: skip


def config(**given: Any) -> SelectionConfig:
    return parse_selection_config({"random_share": 0, **given})


def test_images_with_marked_objects_are_labelled_for_a_detector(lake: Lake) -> None:
    names = fill(lake, 60, holdout=0)
    detect(lake, names)
    marked = {name: ["cat"] * (i % 3) for i, name in enumerate(names[:40])}  # some with none
    mark(lake, marked)
    label(lake, names[40:45])  # of what class an image is tells a detector nothing
    material = read_material(lake, config(strategy="uncertainty"))
    assert set(material.labelled.sample_ids) == set(marked)
    assert material.labelled.labels.count("cat") == sum(len(found) for found in marked.values())
    selection = select_material(material, 20)
    assert selection.removed == {"labelled already": 40}
    assert set(selection.sample_ids) == set(names[40:])
    near = select_material(read_material(lake, config(strategy="diversity")), 5).picks
    assert near[0].nearest_chosen in marked, "the batch keeps away from what is labelled"


def test_a_copy_of_an_image_with_marked_objects_is_not_labelled_again(lake: Lake) -> None:
    names = fill(lake, 20, holdout=0)
    prints = {row["sample_id"]: row["fingerprint"] for row in lake.read("samples").to_pylist()}
    copy = ids(1, "c")[0]
    put(lake, "samples", [
        {"sample_id": copy, "split": "pool", "fingerprint": prints[names[4]], "ingested_at": NOW}
    ])  # fmt: skip
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("pixels", [copy], np.ones((1, 8), dtype=np.float32))
        run.commit(outputs={"space": "pixels"})
    mark(lake, {names[4]: ["dog"]})
    selection = select_from_lake(lake, config(strategy="typicality"), 5).selection
    assert selection.removed == {"labelled already": 1, "copies of labelled": 1}


def test_a_balance_counts_the_objects_that_are_labelled(lake: Lake) -> None:
    names = fill(lake, 40, holdout=0)
    detect(lake, [])
    cat, dog = [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]
    put(lake, "predictions", [
        {"sample_id": s, "model_id": "m",
         "boxes": [{**CORNER, "label": None, "scores": cat if i % 2 else dog}]}
        for i, s in enumerate(names)
    ])  # fmt: skip
    mark(lake, {names[0]: ["dog"] * 6})  # one image of six dogs
    counts = {"type": "PREDICTIONS", "name": "CATEGORY_COUNT", "categories": ["cat", "dog"]}
    balance = {"input": counts, "strategy": {"type": "BALANCE", "distribution": "UNIFORM"}}
    chosen = select_from_lake(lake, config(strategies=[balance]), 6).selection.sample_ids
    assert all(names.index(one) % 2 for one in chosen), "cats, until there are as many"


def test_an_image_that_the_detector_did_not_see_is_not_one_in_which_it_found_nothing(
    lake: Lake,
) -> None:
    names = fill(lake, 20, holdout=0)
    detect(lake, names[:10])
    put(lake, "predictions", [
        {"sample_id": s, "model_id": "m", "boxes": None if s < names[15] else []}
        for s in names[10:]
    ])  # fmt: skip
    found = read_material(lake, config(strategy="uncertainty")).pool.detections
    assert found is not None
    assert found.predicted.tolist() == [True] * 10 + [False] * 5 + [True] * 5
    assert found.without_boxes.tolist() == [False] * 15 + [True] * 5


def test_a_class_of_objects_can_be_looked_for(lake: Lake) -> None:
    names = fill(lake, 20, holdout=0)
    mark(lake, {names[3]: ["cat", "owl"], names[5]: ["dog"]})
    similar = {
        "input": {"type": "EMBEDDINGS", "query": ["label:owl"]},
        "strategy": {"type": "SIMILARITY"},
    }
    material = read_material(lake, config(strategies=[similar]))
    assert material.queries.sample_ids == (names[3],)


@pytest.mark.parametrize(("task", "labelled"), [("", 1), ("detection", 1), ("classification", 0)])
def test_before_there_is_a_model_the_task_tells_what_a_label_is(
    lake: Lake, task: str, labelled: int
) -> None:
    names = fill(lake, 20, holdout=0)
    mark(lake, {names[3]: ["cat"]})
    assert len(read_material(lake, config(), task=task).labelled.sample_ids) == labelled
    label(lake, names[:2])  # now images have classes
    found = read_material(lake, config(), task=task).labelled.sample_ids
    assert set(found) == ({names[3]} if task == "detection" else set(names[:2]))
