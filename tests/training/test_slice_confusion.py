"""A slice's confusion matrix counts the slice's samples, the worst slices first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.training.evaluation import Measured, evaluate_predictions, slice_rates
from visionloop.training.slice_confusion import SliceConfusion, worst_slices

CLASSES = ["cat", "dog", "hen"]


def worst(truth: list[int], said: list[int], cameras: list[str], most: int) -> list[SliceConfusion]:
    """Return the worst slices of a model that said something."""
    answers = np.eye(3, dtype=np.float32)[said]
    names = [CLASSES[i] for i in truth]
    ids = [f"s{i}" for i in range(len(truth))]
    columns = {"camera": cameras}
    evaluation = evaluate_predictions(answers, names, model_classes=CLASSES, classes=CLASSES)
    slices = slice_rates(columns, np.array(truth) == np.array(said))
    measured = Measured({"classes": CLASSES}, evaluation, slices, answers, ids)
    return worst_slices(measured, dict(zip(ids, names, strict=True)), columns, most)


def test_the_slice_that_is_significantly_worse_comes_first_and_counts_its_own_samples() -> None:
    truth = [i % 3 for i in range(200)]
    cameras = ["south" if i < 60 else "north" if i < 190 else "roof" for i in range(200)]
    said = [(t + (i < 40)) % 3 for i, t in enumerate(truth)]
    first, second = worst(truth, said, cameras, 6)  # the roof has too few to say
    assert (first.value, first.n, first.worse) == ("south", 60, True)
    assert sum(map(sum, first.counts)) == 60
    assert sum(first.counts[i][i] for i in range(3)) == 20
    assert "camera = south: 33.3% right" in first.title and "worse than the rest" in first.title
    assert (second.value, second.accuracy, second.worse) == ("north", 1.0, False)
    assert [one.value for one in worst(truth, said, cameras, 1)] == ["south"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from("ab")),
        min_size=1,
        max_size=150,
    )
)
def test_each_matrix_agrees_with_its_slices_rate(rows: list[tuple[int, int, str]]) -> None:
    truth, said, cameras = (list(column) for column in zip(*rows, strict=True))
    for one in worst(truth, said, cameras, 6):
        assert sum(map(sum, one.counts)) == one.n == cameras.count(one.value)
        assert sum(one.counts[i][i] for i in range(3)) / one.n == one.accuracy


def test_a_model_that_was_asked_nothing_has_no_slices() -> None:
    assert not worst_slices(Measured({"classes": CLASSES}, None, []), {}, {}, 6)
