"""Accuracy from labels of random picks: unbiased beside a biased selection, with its interval."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.estimation import picked
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.production import Drawn, Known, Traffic, production_accuracy

THRESHOLDS = MonitoringConfig()


@pytest.mark.parametrize(
    "design", [(1000, 0.93, 8, 5, 45), (1000, 0.75, 4, 10, 40), (600, 0.97, 6, 10, 20)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(
    design: tuple[int, float, int, int, int],
) -> None:
    inside, off, naive_off = 0, [], []
    for seed in range(80):
        said, truth, right, n = picked(seed, *design)
        inside += said.low <= truth <= said.high
        off.append(said.value - truth)
        naive_off.append(right / n - truth)
    # Of 2,500 runs of designs like these .942 to .960 were covered; fewer than 70 of 80 come with
    # a probability of 0.003.
    assert inside >= 70
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(80)
    # What was chosen for being doubtful says too little good of the model.
    assert np.mean(naive_off) < -0.02


def traffic(n: int, right: int = 0) -> list[Traffic]:
    return [Traffic(f"{i:03d}", "0000", 1, {"y" if i < right else "n": 1}) for i in range(n)]


def test_a_few_labels_are_refused() -> None:
    labels = {f"{i:03d}": Known("y", "0001") for i in range(19)}
    picks = [Drawn("0001", sample, 0.1) for sample in labels]
    said = production_accuracy(traffic(200), 200, labels, picks, THRESHOLDS)
    assert said.state == "refused"
    assert said.reason.startswith("19 labels of random picks")
    assert said.reason.endswith("200 of 200 inferences are of samples of the lake")


def test_labels_of_what_was_chosen_alone_are_refused() -> None:
    labels = {f"{i:03d}": Known("y", "0001") for i in range(100)}
    picks = [Drawn("0001", sample, None) for sample in labels]
    assert production_accuracy(traffic(200), 200, labels, picks, THRESHOLDS).state == "refused"


def test_a_pick_that_nobody_asked_the_endpoint_about_tells_nothing() -> None:
    labels = {f"x{i:03d}": Known("y", "0001") for i in range(100)}
    picks = [Drawn("0001", sample, 0.1) for sample in labels]
    said = production_accuracy(traffic(200), 200, labels, picks, THRESHOLDS)
    assert (said.state, said.n) == ("refused", 0)


def test_a_census_has_no_interval() -> None:
    labels = {f"{i:03d}": Known("y", "0001") for i in range(50)}
    picks = [Drawn("0001", sample, 1.0) for sample in labels]
    said = production_accuracy(traffic(50, right=40), 50, labels, picks, THRESHOLDS)
    assert said.value == pytest.approx(0.8)
    assert said.high - said.low < 1e-5


def test_inferences_weigh_as_often_as_they_were_asked() -> None:
    asked = [Traffic(f"{i:03d}", "0000", 9 if i < 50 else 1, {}) for i in range(100)]
    answered = [
        Traffic(
            t.sample_id, "0000", t.inferences, {"y" if t.inferences == 9 else "n": t.inferences}
        )
        for t in asked
    ]
    labels = {t.sample_id: Known("y", "0001") for t in asked[25:75]}
    picks = [Drawn("0001", sample, 0.5) for sample in labels]
    said = production_accuracy(answered, 500, labels, picks, THRESHOLDS)
    assert said.value == pytest.approx(0.9)


def test_missing_labels_and_images_that_came_late_or_never_are_told() -> None:
    came = [*traffic(100), *(Traffic(f"late{i}", "0002", 1, {"y": 1}) for i in range(100))]
    labels = {f"{i:03d}": Known("y", "0001") for i in range(30)}
    picks = [Drawn("0001", f"{i:03d}", 0.4) for i in range(40)]
    said = production_accuracy(came, 400, labels, picks, THRESHOLDS)
    assert said.evidence["n_labels_missing"] == 10
    # Of 400 inferences 200 are of images of the lake, and of these 100 could be drawn.
    assert said.evidence["covered"] == pytest.approx(0.25)
    assert (said.evidence["n_inferences"], said.evidence["n_linked"]) == (400, 200)
