"""Advice on stopping: each claim against curves whose truth is known, and on a real lake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.selection.small_lake import CLASSES, NOW, fill, label, put, vectors
from visionloop.lake import Lake
from visionloop.selection.advice import Past, advise, headline, read_past
from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import Selection, select
from visionloop.selection.learning_curve import Point, expected_gain
from visionloop.selection.pool import Pool, Reference
from visionloop.stages.select import select as select_stage

LABELS = (20, 40, 60, 80, 100, 120)


def curve(
    top: float, slope: float, rate: float, *, n: int = 500, seed: int | None = None
) -> tuple[Point, ...]:
    points = []
    for i, labels in enumerate(LABELS):
        true = top - slope * labels**-rate
        right = true if seed is None else np.random.default_rng([seed, i]).binomial(n, true) / n
        points.append(Point(labels, right, n))
    return tuple(points)


def selection(pool: int = 40, already: int = 0, n: int = 5) -> Selection:
    x = vectors(pool)
    names = [f"{i:03d}" for i in range(pool)]
    labelled = Reference.build(names[:already], embeddings={"e": x[:already]})
    config = parse_selection_config({"strategy": "diversity"})
    return select(Pool.build(names, embeddings={"e": x}), config, n, labelled=labelled)


def test_a_curve_without_noise_is_continued_as_it_is() -> None:
    gain = expected_gain(curve(0.95, 2.0, 0.7), 240)
    assert gain is not None
    assert gain.expected == pytest.approx(2.0 * (120**-0.7 - 240**-0.7), abs=2e-3)
    assert gain.low <= gain.expected <= gain.high


@pytest.mark.parametrize(("top", "slope", "rate"), [(0.95, 2.0, 0.7), (0.9, 3.0, 1.0)])
def test_the_interval_holds_the_true_gain_at_least_as_often_as_it_says(
    top: float, slope: float, rate: float
) -> None:
    true = slope * (120**-rate - 240**-rate)
    held = 0
    for seed in range(40):
        gain = expected_gain(curve(top, slope, rate, seed=seed), 240)
        assert gain is not None
        held += gain.low <= true <= gain.high
    assert held >= 33  # of 40, at a level of 90%: fewer come with a chance below 5%


def test_three_measured_models_are_too_few_to_say() -> None:
    assert expected_gain(curve(0.9, 2.0, 0.7)[:3], 240) is None
    same = tuple(Point(20, 0.5 + i / 100, 500) for i in range(6))
    assert expected_gain(same, 40) is None
    advice = advise(parse_selection_config({}), selection(), Past(points=same))
    assert advice.verdict == "too_few" and advice.gain is None
    assert any("too few to say" in reason for reason in advice.reasons)
    assert headline(advice).startswith("Too few to say")


def test_a_flat_curve_on_a_large_holdout_says_stop_and_a_steep_one_go_on() -> None:
    config = parse_selection_config({})
    flat = advise(config, selection(), Past(points=curve(0.9, 0.0, 1.0, n=20000)))
    assert flat.verdict == "stop" and "flat" in " ".join(flat.reasons)
    steep = advise(config, selection(), Past(points=curve(0.99, 2.0, 0.4, n=20000)))
    assert steep.verdict == "go_on" and steep.gain is not None and steep.gain.low > 0.01


def test_a_flat_curve_on_a_small_holdout_is_not_clear() -> None:
    advice = advise(parse_selection_config({}), selection(), Past(points=curve(0.9, 0, 1.0, n=40)))
    assert advice.verdict == "unclear"
    assert advice.gain is not None and advice.gain.low < 0.01 < advice.gain.high


def test_no_curve_promises_more_than_all_right() -> None:
    rising = (0.90, 0.95, 0.97, 0.985, 0.992, 0.998)  # a power law through these ends above 1
    points = tuple(Point(n, a, 10_000) for n, a in zip(LABELS, rising, strict=True))
    gain = expected_gain(points, 10_000)
    assert gain is not None and 0 < gain.expected <= gain.high <= 0.012


def test_a_budget_that_this_batch_spends_says_stop() -> None:
    config = parse_selection_config({"label_budget": 25})
    assert advise(config, selection(), Past(asked=19)).verdict == "too_few"
    spent = advise(config, selection(), Past(asked=20))
    assert spent.verdict == "stop" and headline(spent) == "The label budget is spent"
    over = advise(config, selection(), Past(asked=22))
    assert over.verdict == "stop" and "2 more than there are" in over.reasons[0]


@pytest.mark.parametrize("already", [0, 7])
def test_the_radius_is_the_farthest_image_of_the_pool(already: int) -> None:
    made = selection(already=already)
    x = vectors(40).astype(np.float64)
    picks = [int(name) for name in made.sample_ids]
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert made.radius == pytest.approx(distance[:, [*range(already), *picks]].min(1).max(), 1e-5)
    if already:
        expected = distance[:, :already].min(axis=1).max()
        assert made.radius_before == pytest.approx(expected, 1e-5)
        assert made.radius < made.radius_before
    else:
        assert made.radius_before == np.inf
        assert advise(parse_selection_config({}), made, Past()).radius_before is None


def test_a_pool_of_copies_of_what_is_labelled_is_covered() -> None:
    x = np.repeat(vectors(3), 4, axis=0)
    names = [f"{i:02d}" for i in range(12)]
    labelled = Reference.build(names[::4], embeddings={"e": x[::4]})
    config = parse_selection_config({"strategy": "diversity"})
    pool = Pool.build(names, embeddings={"e": x})
    made = select(pool, config, 2, labelled=labelled, at_most=True)
    assert made.sample_ids == ()
    advice = advise(config, made, Past())
    assert advice.verdict == "stop" and "The pool is covered" in " ".join(advice.reasons)


def test_a_round_keeps_the_advice_and_the_next_one_shows_the_radius(
    lake: Lake, tmp_path: Path
) -> None:
    names = fill(lake)
    config = json.dumps(
        {
            "name": lake.loop,
            "lake": lake.uri,
            "classes": CLASSES,
            "selection": {"n_samples": 4, "label_budget": 100},
        }
    )
    lake.rounds.open("run-1")
    select_stage(config=config, round_id="0000")
    first = lake.rounds.get("0000")
    assert first is not None
    told = first.counts["selection"]["advice"]
    assert told["verdict"] == "too_few" and told["asked"] == 4 and told["radius"] > 0
    asked = [{"sample_id": s, "purpose": "training"} for s in names[:4]]
    put(lake, "label_requests", [*asked, {"sample_id": "f", "purpose": "holdout"}])
    label(lake, names[:4])
    metrics = json.dumps({"n": 200, "accuracy": 0.7})
    models = [{"model_id": f"m{i}", "n_labels": 10 * i, "metrics": metrics} for i in (1, 2)]
    put(
        lake,
        "experiments",
        [{**m, "arm": arm, "trained_at": NOW} for m in models for arm in ("loop", "random")],
    )
    past = read_past(lake, before="0001")
    assert past.asked == 4 and past.radii == (told["radius"],)
    assert past.points == (Point(10, 0.7, 200), Point(20, 0.7, 200))
    page = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    select_stage(config=config, round_id="0001", page=page)
    text = (tmp_path / "page.md").read_text()
    assert "## Too few to say whether more labels are worth it" in text
    assert f"after earlier rounds {told['radius']:.3f}" in text
    assert "8 of 100 labels of the budget" in text
