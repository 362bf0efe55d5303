from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionloop.training.evaluation import evaluate_predictions, slice_names, slice_rates
from visionloop.training.gate import judge

CLASSES = ["cat", "dog", "owl"]


def certain(labels: list[str], classes: list[str], p: float = 0.9) -> np.ndarray:
    rest = (1 - p) / (len(classes) - 1)
    return np.array(
        [[p if name == label else rest for name in classes] for label in labels], np.float32
    )


def test_counts_rates_and_the_confusion_matrix_agree_with_hand_counting() -> None:
    truth = ["cat", "cat", "cat", "dog", "dog", "owl"]
    said = ["cat", "cat", "dog", "dog", "dog", "cat"]
    found = evaluate_predictions(
        certain(said, CLASSES), truth, model_classes=CLASSES, classes=CLASSES
    )
    assert found.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.low < 4 / 6 < found.high
    cat, dog, owl = found.per_class
    assert (cat["precision"], cat["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (dog["precision"], dog["recall"]) == (pytest.approx(2 / 3), 1.0)
    assert (owl["precision"], owl["recall"], owl["f1"]) == (0.0, 0.0, 0.0)
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert found.calibration.value == pytest.approx(abs(0.9 - 4 / 6), abs=1e-6)


def test_a_model_that_lacks_a_class_is_wrong_there_and_the_matrix_stays_square() -> None:
    found = evaluate_predictions(
        certain(["dog", "dog"], ["dog", "cat"]),
        ["dog", "owl"],
        model_classes=["dog", "cat"],
        classes=CLASSES,
    )
    assert found.confusion == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert found.accuracy == 0.5


@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=30)
)
def test_every_metric_is_finite_and_every_sample_is_counted(pairs: list[tuple[str, str]]) -> None:
    truth, said = [t for t, _ in pairs], [s for _, s in pairs]
    found = evaluate_predictions(
        certain(said, CLASSES), truth, model_classes=CLASSES, classes=CLASSES
    )
    assert sum(map(sum, found.confusion)) == found.n == len(pairs)
    json.dumps(found.metrics(), allow_nan=False)
    assert 0 <= found.macro_f1 <= 1
    ece, brier = found.calibration, found.brier
    assert 0 <= ece.low <= ece.value <= ece.high <= 1
    assert 0 <= brier.low <= brier.value <= brier.high <= 2
    assert sum(row["n"] for row in found.reliability) == found.n


def test_slices_of_a_column_add_up_to_all_samples() -> None:
    right = np.arange(100) % 4 != 0
    columns: dict[str, list[Any]] = {
        "camera": ["a" if i % 3 else None for i in range(100)],
        "lux": [float(i) for i in range(100)],
        "flash": [bool(i % 2) for i in range(100)],
        "id": [str(i) for i in range(100)],
        "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 100,
        "constant": ["x"] * 100,
        "absent": [None] * 100,
    }
    found = slice_rates(columns, right)
    assert {row["column"] for row in found} == {"camera", "lux", "flash"}
    for column in ("camera", "lux", "flash"):
        assert sum(row["n"] for row in found if row["column"] == column) == 100
    lux = [row for row in found if row["column"] == "lux"]
    assert [row["n"] for row in lux] == [25, 25, 25, 25]
    assert [row["value"][0] for row in lux] == ["1", "2", "3", "4"]
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in found)


def test_a_slice_is_called_worse_only_where_chance_cannot_explain_it() -> None:
    draw = np.random.Generator(np.random.PCG64(5))
    night = np.arange(600) < 60
    right = draw.random(600) < np.where(night, 0.5, 0.9)
    columns: dict[str, list[Any]] = {
        "light": ["night" if dark else "day" for dark in night],
        "tiny": ["few" if i < 10 else "many" for i in range(600)],
        **{f"noise{i}": list(draw.integers(0, 4, 600).astype(str)) for i in range(20)},
    }
    found = {(row["column"], row["value"]): row for row in slice_rates(columns, right)}
    assert [key for key, row in found.items() if row["worse"]] == [("light", "night")]
    assert (found["tiny", "few"]["p"], found["tiny", "few"]["worse"]) == (None, None)
    stats = pytest.importorskip("scipy.stats")
    n, hits = int(night.sum()), int(right[night].sum())
    rest = int(right.sum()) - hits
    table = [[hits, n - hits], [rest, 600 - n - rest]]
    tested = sum(row["p"] is not None for row in found.values())
    peer = stats.fisher_exact(table, alternative="less").pvalue * tested
    assert found["light", "night"]["p"] == pytest.approx(peer)
    # Each interval is wider than one by itself, since all of them are to hold.
    alone = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found["light", "night"]["low"] < alone.low < alone.high < found["light", "night"]["high"]


def test_slices_that_are_alike_are_seldom_called_worse() -> None:
    wrong = 0
    for seed in range(200):
        draw = np.random.Generator(np.random.PCG64(seed))
        columns = {f"c{i}": list(draw.integers(0, 5, 300).astype(str)) for i in range(8)}
        found = slice_rates(columns, draw.random(300) < 0.8)
        wrong += any(row["worse"] for row in found)
    # 10 are meant at most; 18 or more come with a probability of 0.013.
    assert wrong <= 17


def test_few_numbers_are_cut_in_halves_and_few_values_not_at_all() -> None:
    halves = slice_names([float(i) for i in range(10)])
    assert halves is not None and len(set(halves)) == 2
    assert slice_names([1, 2, 2, None]) == ["1", "2", "2", "(none)"]
    # A sidecar may say "(none)" itself: it is not among those that say nothing.
    assert slice_names(["(none)", None, "a"]) == ['"(none)"', "(none)", "a"]
    odd = slice_names([math.nan, math.inf, *map(float, range(10))])
    assert odd is not None and odd[:2] == ["(none)", "(none)"]


def decide(accuracy: float | None, before: float | None = None, **changes: Any) -> tuple[bool, str]:
    served = "m0" if before is not None else ""
    settings: dict[str, Any] = {
        "n": 100,
        "n_holdout": 100,
        "interval": (0.1, 0.9),
        "best": served,
        "best_accuracy": before,
        "min_accuracy": 0.5,
        "max_drop": 0.02,
        "allow_unevaluated": False,
    }
    verdict = judge(
        accuracy,
        in_service=served,
        in_service_accuracy=before,
        **(settings | changes),
    )
    json.dumps(verdict.inputs, allow_nan=False)
    return verdict.passed, verdict.reason


def test_the_gate_rejects_what_loses_too_much_and_says_by_how_much() -> None:
    assert decide(0.90, 0.91)[0]
    passed, reason = decide(0.80, 0.91)
    assert not passed
    assert "-0.110" in reason and "max_drop 0.02" in reason
    # 0.9 - 0.92 is a little below -0.02 in floating point.
    assert decide(0.90, 0.92)[0]


def test_the_gate_rejects_what_is_below_the_minimum_also_as_the_first_model() -> None:
    assert not decide(0.4)[0]
    assert not decide(0.49, 0.3)[0]
    assert decide(0.5)[0]


def test_a_first_model_that_no_gate_holds_back_passes_and_the_reason_says_so() -> None:
    passed, reason = decide(0.1, min_accuracy=0.0)
    assert passed and "gates.min_accuracy is 0: any accuracy passes" in reason
    assert "any accuracy" not in decide(0.5)[1]


def test_a_model_that_was_not_evaluated_passes_only_where_that_is_allowed() -> None:
    passed, reason = decide(None)
    assert not passed and "allow_unevaluated" in reason
    assert decide(None, allow_unevaluated=True)[0]


def test_a_loop_that_loses_a_little_in_every_round_is_stopped_at_the_best_it_ever_was() -> None:
    best = current = 0.95
    passes = 0
    for _ in range(30):
        candidate = current - 0.01
        passed, reason = decide(candidate, current, best="m-first", best_accuracy=best)
        if not passed:
            assert "m-first" in reason and "0.950" in reason and f"{current:.3f} of m0" in reason
            break
        current, passes = candidate, passes + 1
    assert passes == 2 and current >= best - 0.02 - 1e-9


def test_without_a_holdout_the_gate_says_so_and_asks_for_no_labels() -> None:
    passed, reason = decide(None, n=0, n_holdout=0, interval=None)
    assert not passed and "there is no holdout" in reason and "ingest more" in reason
    assert "label the holdout" not in reason
    assert "none of the 7 holdout samples has a label" in decide(None, n=0, n_holdout=7)[1]


def test_a_small_holdout_is_told_with_its_interval() -> None:
    assert "95% interval is 0.596 to 0.982" in decide(0.9, n=10, interval=(0.596, 0.982))[1]
    assert "interval" not in decide(0.9, n=50, interval=(0.78, 0.96))[1]
