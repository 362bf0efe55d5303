"""With which probability a sample was picked, and what near duplicates are to the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool, Reference
from visionloop.selection.record import picks_table, selection_rows

POOL, ALIKE = 40, 20


def config(**data: Any) -> SelectionConfig:
    return parse_selection_config(data)


def vectors(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def half_alike() -> Pool:
    """Half of the samples are near duplicates of each other, by vector and by fingerprint."""
    x, rng = vectors(POOL), np.random.default_rng(3)
    x[:ALIKE] = x[0]
    prints = [bytes([7]) * 32] * ALIKE + [rng.bytes(32) for _ in range(POOL - ALIKE)]
    return Pool.build(
        [f"{i:04d}" for i in range(POOL)],
        embeddings={"e": x},
        probabilities=rng.dirichlet(np.ones(4), size=POOL).astype(np.float32),
        classes=list("abcd"),
        fingerprints=prints,
    )


@pytest.mark.parametrize(("strategy", "drawn"), [("uncertainty", 4), ("random", 10)])
def test_an_estimate_from_the_random_share_is_unbiased_among_near_duplicates(
    strategy: str, drawn: int
) -> None:
    """Horvitz-Thompson: how many of the pool are near duplicates of each other, from the draws."""
    pool, estimates = half_alike(), []
    for seed in range(300):
        picks = select(pool, config(strategy=strategy, random_share=0.4), 10, seed=seed).picks
        random = [pick for pick in picks if pick.arm == "random"]
        assert len(random) == drawn
        assert {pick.propensity for pick in random} == {drawn / POOL}
        estimates.append(sum(POOL / drawn for p in random if int(p.sample_id) < ALIKE))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - ALIKE) < 4 * error


def test_nothing_is_chosen_that_is_close_to_what_was_drawn() -> None:
    for seed in range(20):
        picks = select(half_alike(), config(random_share=0.4), 10, seed=seed).picks
        alike = [p.arm for p in picks if int(p.sample_id) < ALIKE]
        assert alike.count("selected") <= ("random" not in alike)


def test_a_near_duplicate_of_what_is_labelled_is_not_chosen_but_may_be_drawn() -> None:
    x = vectors(20)
    margin = np.linspace(0.1, 0.9, 20)
    pool = Pool.build(
        [f"{i:04d}" for i in range(20)], embeddings={"e": x}, scores={"margin": margin}
    )
    known = Reference.build(["z"], embeddings={"e": x[19:]})
    plan = config(strategy="uncertainty", random_share=0)
    assert select(pool, plan, 1).sample_ids == ("0019",)
    assert select(pool, plan, 2, labelled=known).sample_ids == ("0018", "0017")
    every = select(pool, config(strategy="random"), 20, labelled=known)
    assert "0019" in every.sample_ids


LOT = {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS"}}
NO_LOT = {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS", "strength": 0}}
MARGIN = {"input": {"type": "SCORES", "score": "margin"}, "strategy": {"type": "WEIGHTS"}}


@pytest.mark.parametrize(
    ("plan", "known"),
    [
        ({"strategy": "badge"}, False),
        ({"strategies": [LOT]}, False),
        ({"strategies": [LOT, MARGIN]}, False),
        ({"strategies": [NO_LOT, MARGIN]}, True),
        ({"strategy": "uncertainty"}, True),
    ],
)
def test_the_propensity_is_unknown_where_chance_has_a_part_in_the_choice(
    plan: dict[str, Any], known: bool
) -> None:
    selection = select(half_alike(), config(**plan, random_share=0.2), 10)
    found = {(pick.arm, pick.propensity) for pick in selection.picks}
    assert found == {("selected", 1.0 if known else None), ("random", 2 / POOL)}
    column = picks_table(selection_rows(selection, model_id="m"))["propensity"]
    assert column.null_count == (0 if known else 8)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_quota_that_was_drawn_has_no_known_propensity(embedded: bool) -> None:
    boxes: list[Any] = [[{"scores": [0.6, 0.4]}]] * 10 + [[]] * 10
    pool = Pool.build(
        [f"{i:04d}" for i in range(20)],
        boxes=boxes,
        classes=["a", "b"],
        embeddings={"e": vectors(20)} if embedded else None,
    )
    plan = config(strategy="uncertainty", random_share=0, unknown_share=0.5)
    found = {(pick.arm, pick.propensity) for pick in select(pool, plan, 6).picks}
    assert found == {("selected", 1.0), ("unknown", 1.0 if embedded else None)}
