"""A detector's boxes: one number an image, and images in which it found nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionloop.errors import InputError
from visionloop.selection.config import parse_selection_config
from visionloop.selection.detections import Detections
from visionloop.selection.engine import select
from visionloop.selection.explain import explain
from visionloop.selection.pool import Pool

CLASSES = ["car", "bus"]
Boxes = list[dict[str, Any]]
# Two boxes, one box, none, not predicted.
IMAGES: list[Boxes | None] = [
    [{"scores": [0.9, 0.1]}, {"scores": [0.4, 0.6]}],
    [{"scores": [0.3, 0.7]}],
    [],
    None,
]


def found() -> Detections:
    return Detections.build(IMAGES, CLASSES)


@pytest.mark.parametrize(
    ("score", "reducer", "first", "second"),
    [
        ("margin", "max", 0.8, 0.6),  # 1 - (.9 - .1) = .2 and 1 - (.6 - .4) = .8
        ("margin", "mean", 0.5, 0.6),
        ("margin", "sum", 1.0, 0.6),
        ("least_confidence", "max", 0.8, 0.6),  # (1 - .6)·2, (1 - .9)·2
        ("least_confidence", "mean", 0.5, 0.6),
        ("entropy", "max", 0.970951, 0.881291),
    ],
)
def test_a_named_reducer_makes_one_number_of_several_boxes(
    score: str, reducer: Any, first: float, second: float
) -> None:
    values = found().uncertainty(score, reducer)
    np.testing.assert_allclose(values, [first, second, np.nan, np.nan], atol=1e-5)


def test_scores_that_do_not_sum_to_one_leave_the_rest_to_the_background() -> None:
    sigmoid = Detections.build([[{"scores": [0.5, 0.1]}], [{"scores": [0.9, 0.3]}]], CLASSES)
    # .5, .1 and .4 of background; .9/1.2, .3/1.2 and none.
    np.testing.assert_allclose(sigmoid.uncertainty("margin", "max"), [0.9, 0.5], atol=1e-6)


def one(*scores: float) -> Detections:
    return Detections.build([[{"scores": list(scores)}]], [f"c{i}" for i in range(len(scores))])


@pytest.mark.parametrize("score", ["margin", "least_confidence", "entropy"])
def test_what_a_box_counts_depends_on_no_other_box(score: str) -> None:
    images: list[Boxes | None] = [[{"scores": s}] for s in ([0.6, 0.4], [0.5, 0.3], [0.9, 0.9])]
    together = Detections.build(images, CLASSES).uncertainty(score, "max")
    alone = [Detections.build([image], CLASSES).uncertainty(score, "max")[0] for image in images]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("score", ["margin", "least_confidence", "entropy"])
def test_a_little_background_changes_little_and_even_scores_are_the_most_uncertain(
    score: str,
) -> None:
    steps = [one(0.6 * (1 - b), 0.4 * (1 - b)).uncertainty(score, "max")[0]
             for b in np.linspace(0, 0.02, 41)]  # fmt: skip
    assert np.abs(np.diff(steps)).max() < 0.01
    for even in ((0.5, 0.5), (0.4995, 0.4995), (0.45, 0.45), (1 / 3, 1 / 3)):
        assert one(*even).uncertainty(score, "max")[0] == pytest.approx(1.0, abs=1e-6)
    # One class alone: nothing but the background can be doubted.
    certain, doubtful = one(0.99).uncertainty(score, "max"), one(0.5).uncertainty(score, "max")
    assert certain[0] < 0.1 and doubtful[0] == pytest.approx(1.0, abs=1e-6)


def test_a_background_as_large_as_a_class_is_one_of_them() -> None:
    # .4, .2 and .4 of background: (1 - .4)·3/2 and H/ln 3.
    box = one(0.4, 0.2)
    np.testing.assert_allclose(box.uncertainty("least_confidence", "max"), [0.9], atol=1e-6)
    np.testing.assert_allclose(box.uncertainty("entropy", "max"), [0.960230], atol=1e-5)


def test_counts_and_distributions_are_of_all_boxes() -> None:
    np.testing.assert_array_equal(found().category_counts()[:3], [[1, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(
        found().class_distribution()[:3], [[1.3, 0.7], [0.3, 0.7], [0, 0]], atol=1e-6
    )
    assert np.isnan(found().category_counts()[3]).all()
    np.testing.assert_allclose(
        found().objectness_least_confidence(), [0.1, 0.3, np.nan, np.nan], atol=1e-6
    )
    assert found().without_boxes.tolist() == [False, False, True, False]


def test_a_box_with_one_score_and_a_label_is_of_that_class() -> None:
    one = Detections.build([[{"scores": [0.7], "label": "bus"}]], CLASSES)
    np.testing.assert_allclose(one.scores, [[0.0, 0.7]], atol=1e-6)
    with pytest.raises(InputError, match="1 scores for 2 classes, and its label is 'tram'"):
        Detections.build([[{"scores": [0.7], "label": "tram"}]], CLASSES)
    with pytest.raises(InputError, match=r"not in \[0, 1\]"):
        Detections.build([[{"scores": [0.7, 1.2]}]], CLASSES)


def make(n: int = 40, empty: int = 10, *, embedded: bool = True) -> Pool:
    """Return images with one box each, the last of them with none."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    boxes: list[Boxes] = [[{"scores": [p, 1 - p]}] for p in rng.uniform(0.5, 1, size=n - empty)]
    return Pool.build(
        [f"{i:04d}" for i in range(n)],
        embeddings={"e": x} if embedded else {},
        boxes=[*boxes, *([] for _ in range(empty))],
        classes=CLASSES,
    )


@pytest.mark.parametrize("embedded", [True, False])
def test_images_without_boxes_have_a_quota_of_their_own(embedded: bool) -> None:
    config = parse_selection_config(
        {"strategy": "uncertainty", "random_share": 0, "unknown_share": 0.3}
    )
    selection = select(make(embedded=embedded), config, 10)
    unknown = [pick for pick in selection.picks if pick.arm == "unknown"]
    assert len(unknown) == 3
    assert all(int(pick.sample_id) >= 30 for pick in unknown)
    assert all(pick.objectives == {"margin": None} for pick in unknown)
    assert all(int(p.sample_id) < 30 for p in selection.picks if p.arm == "selected")
    assert len(set(selection.sample_ids)) == 10
    assert "found nothing" in explain(unknown[0].objectives, arm="unknown")


def test_an_image_that_was_never_predicted_changes_no_quota() -> None:
    rng = np.random.default_rng(0)
    boxes: list[Boxes | None] = [
        [{"scores": [p, 1 - p]}] if i % 2 else [] for i, p in enumerate(rng.uniform(0.5, 1, 40))
    ]
    config = parse_selection_config(
        {"strategy": "uncertainty", "random_share": 0, "unknown_share": 0.3}
    )
    for first in (boxes[1], None):
        boxes[0] = first
        pool = Pool.build([f"{i:04d}" for i in range(40)], boxes=boxes, classes=CLASSES)
        arms = [pick.arm for pick in select(pool, config, 10).picks]
        assert arms.count("unknown") == 3


def test_the_quota_is_spread_over_the_unknown_images() -> None:
    pool = make()
    config = parse_selection_config(
        {"strategy": "uncertainty", "random_share": 0, "unknown_share": 1.0}
    )
    chosen = [int(s) for s in select(pool, config, 3).sample_ids]
    x = pool.embeddings["e"].astype(np.float64)
    expected = [30]
    for _ in range(2):
        distance = np.linalg.norm(x[30:, None] - x[expected][None], axis=2).min(axis=1)
        expected.append(30 + int(distance.argmax()))
    assert chosen == expected


def test_an_objective_that_knows_every_image_needs_no_quota() -> None:
    config = parse_selection_config({"strategy": "diversity", "random_share": 0})
    assert {pick.arm for pick in select(make(), config, 10).picks} == {"selected"}


def line(kind: str, input_: dict[str, Any], **strategy: Any) -> dict[str, Any]:
    return {"input": input_, "strategy": {"type": kind, **strategy}}


def test_categories_limit_what_is_counted() -> None:
    pool = Pool.build(
        ["a", "b", "c", "d"],
        boxes=[
            [{"scores": [0.9, 0.1]}] * 3,
            [{"scores": [0.1, 0.9]}] * 2,
            [{"scores": [0.2, 0.8]}],
            None,
        ],
        classes=CLASSES,
    )
    buses = {"type": "PREDICTIONS", "name": "CATEGORY_COUNT", "categories": ["bus"]}
    config = parse_selection_config(
        {
            "strategies": [
                line("WEIGHTS", buses),
                line("THRESHOLD", buses, threshold=1, operation="BIGGER_EQUAL"),
            ],
            "random_share": 0,
        }
    )
    selection = select(pool, config, 2)
    assert selection.sample_ids == ("b", "c")
    assert selection.removed == {
        "unknown to the threshold on count_bus (bigger or equal 1)": 1,
        "failing the threshold on count_bus (bigger or equal 1)": 1,
    }
    wrong = {**buses, "categories": ["tram"]}
    with pytest.raises(InputError, match=r"does not have: tram.*It has car, bus"):
        select(pool, parse_selection_config({"strategies": [line("WEIGHTS", wrong)]}), 1)


def test_a_balance_of_detections_counts_objects_not_images() -> None:
    boxes: list[Boxes] = [[{"scores": [0.9, 0.1]}] * 4] * 5 + [[{"scores": [0.1, 0.9]}]] * 20
    names = [f"{i:04d}" for i in range(25)]
    pool = Pool.build(names, boxes=boxes, classes=CLASSES)
    counts = {"type": "PREDICTIONS", "name": "CATEGORY_COUNT"}
    config = parse_selection_config(
        {"strategies": [line("BALANCE", counts, distribution="UNIFORM")], "random_share": 0}
    )
    chosen = [int(s) for s in select(pool, config, 10).sample_ids]
    assert sum(i < 5 for i in chosen) == 2, "two images of four cars, eight of one bus"


def test_badge_is_refused_for_a_detector() -> None:
    with pytest.raises(InputError, match="the model in service is a detector"):
        select(make(), parse_selection_config({"strategy": "badge"}), 3)


def test_scores_of_boxes_are_refused_for_a_classifier() -> None:
    pool = Pool.build(["a"], probabilities=np.array([[0.5, 0.5]]), classes=CLASSES)
    for score in ("object_frequency", "objectness_least_confidence"):
        config = parse_selection_config(
            {"strategies": [line("WEIGHTS", {"type": "SCORES", "score": score})]}
        )
        with pytest.raises(InputError, match="the model in service is a classifier"):
            select(pool, config, 1)


@pytest.mark.parametrize("strategy", ["auto", "uncertainty", "typicality", "probcover", "random"])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_every_strategy_fills_its_batch_from_a_detectors_images(strategy: str, n: int) -> None:
    config = parse_selection_config({"strategy": strategy})
    selection = select(make(), config, n)
    assert len(set(selection.sample_ids)) == n
    assert [pick.rank for pick in selection.picks] == list(range(n))
    quota = round(0.1 * n) if strategy == "uncertainty" else None
    unknown = [pick.arm for pick in selection.picks].count("unknown")
    assert quota is None or unknown == min(quota, 10)
    assert selection.pool == selection.eligible + sum(selection.removed.values())
