"""The page of `evaluate` shows names literally, and calls worse only what is."""

from __future__ import annotations

import json
import re

import numpy as np

from visionloop.stages.evaluation_page import evaluation_page
from visionloop.training.evaluation import Measured, evaluate_predictions, slice_rates
from visionloop.training.gate import Verdict


def page(night_wrong: float, *, small_below: int = 30) -> str:
    """Return the page of a model that is wrong so often at night, with names that are markup."""
    draw = np.random.Generator(np.random.PCG64(1))
    classes = ["<b>cat</b>", "dog_*x*", "fox"]
    truth = [classes[i] for i in draw.integers(0, 2, 400)]
    wrong = draw.random(400) < np.where(np.arange(400) < 80, night_wrong, 0.1)
    said = (np.array([classes.index(label) for label in truth]) + wrong) % 2
    p = np.full((400, 3), 0.05, np.float32)
    p[np.arange(400), said] = 0.9
    found = evaluate_predictions(p, truth, model_classes=classes, classes=classes)
    columns = {
        "<i>light": ["night|<script>" if i < 80 else "day" for i in range(400)],
        "lens": ["new" if i < 9 else "old" for i in range(400)],
    }
    row = {"model_id": "m-1", "metrics": json.dumps({}), "n_labels": 7, "arm": "loop"}
    measured = Measured(row, found, slice_rates(columns, ~wrong, small_below=small_below))
    return evaluation_page([measured], None, Verdict(True, "first model", {}), [])


def test_a_slice_that_is_worse_is_told_first_and_names_are_shown_literally() -> None:
    text = page(0.6)
    assert re.search(
        r"is worse than the rest: 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) of 80 samples", text
    )
    assert "too few to say" in text
    assert "Too few samples to say: 1 slice of 4." in text
    assert "<b>" not in text and "<script>" not in text and "<i>" not in text
    assert "&#60;b&#62;cat&#60;/b&#62;" in text and "dog&#95;&#42;x&#42;" in text


def test_where_no_slice_is_worse_the_page_says_so() -> None:
    text = page(0.1)
    assert "No slice is worse than the rest by more than chance would make it." in text
    assert "is worse than the rest:" not in text


def test_where_no_slice_is_large_enough_nothing_is_said_of_any() -> None:
    text = page(0.6, small_below=500)
    assert "cannot be told of so few samples" in text and "No slice is worse" not in text


def test_rates_of_classes_have_intervals_and_those_of_nothing_are_none() -> None:
    rows = [line for line in page(0.1).splitlines() if line.startswith(("| dog", "| fox"))]
    assert re.match(
        r"\| dog\S+ \| \d+ \| \d+ \| (0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) \| ){2}0\.", rows[0]
    )
    assert rows[1] == "| fox | 0 | 0 | none | none | none |"
