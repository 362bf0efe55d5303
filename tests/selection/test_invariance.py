"""The same samples give the same bytes, whatever the order they came in and the threads at work."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS
from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.engine import Selection, select
from visionloop.selection.pool import Pool, Reference

CLASSES = ["car", "bus", "tram"]
N = 90
PRESETS = ["auto", "random", "typicality", "diversity", "probcover", "uncertainty", "badge"]
EMBEDDINGS = {"type": "EMBEDDINGS"}
LINES: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "typicality and diversity": [
        (EMBEDDINGS, {"type": "TYPICALITY"}),
        (EMBEDDINGS, {"type": "DIVERSITY", "strength": 0.5}),
    ],
    "similarity": [({**EMBEDDINGS, "query": ["0003", "0044"]}, {"type": "SIMILARITY"})],
    "probcover": [(EMBEDDINGS, {"type": "PROBCOVER", "radius": 0.7})],
    "badge and coverage": [
        (EMBEDDINGS, {"type": "BADGE"}),
        (EMBEDDINGS, {"type": "COVERAGE", "strength": 0.2}),
    ],
    "committee": [({"type": "SCORES", "score": "vote_entropy"}, {"type": "WEIGHTS"})],
    "similar to deployed": [
        ({"type": "SCORES", "score": "similar_deployed_entropy"}, {"type": "WEIGHTS"})
    ],
    "deployed": [({"type": "SCORES", "score": "deployed_margin"}, {"type": "WEIGHTS"})],
    "balances": [
        ({"type": "METADATA", "key": "place"}, {"type": "BALANCE", "distribution": "UNIFORM"}),
        ({"type": "PREDICTIONS"}, {"type": "BALANCE", "distribution": "INPUT"}),
    ],
    "range": [
        (
            {"type": "METADATA", "key": "speed"},
            {"type": "WEIGHTS", "target_range": {"min_sum": 30, "max_sum": 40}},
        )
    ],
    "without near duplicates": [
        (EMBEDDINGS, {"type": "NEAR_DUPLICATES", "distance": 0.5}),
        (EMBEDDINGS, {"type": "DIVERSITY"}),
    ],
    "random": [({"type": "RANDOM", "random_seed": 4}, {"type": "WEIGHTS"})],
}


def configured(name: str) -> SelectionConfig:
    if name in PRESETS:
        return parse_selection_config({"strategy": name})
    return parse_selection_config(
        {"strategies": [{"input": i, "strategy": s} for i, s in LINES[name]]}
    )


class World:
    """Clustered samples with copies of the holdout among them, ties in every score."""

    def __init__(self, seed: int, n: int = N, d: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.names = [f"{i:04d}" for i in range(n)]
        x = rng.normal(size=(6, d))[rng.integers(6, size=n)] + 0.4 * rng.normal(size=(n, d))
        x[50:55] = x[:5]
        self.x = x.astype(np.float32)
        self.p = rng.dirichlet(np.ones(3), size=(3, n)).round(1)
        self.p /= self.p.sum(axis=2, keepdims=True)
        self.prints = [rng.bytes(32) for _ in range(n)]
        self.frozen = [self.flip(self.prints[i], NEAR_DUPLICATE_BITS) for i in (7, 8)]
        self.deployed = np.where(rng.random(n) < 0.3, rng.random(n).round(1), np.nan)
        self.place = [str(v) for v in rng.choice(["north", "south", "west"], size=n)]
        self.speed = rng.integers(0, 9, size=n).astype(float)
        self.known = rng.normal(size=(12, d)).astype(np.float32)

    @staticmethod
    def flip(fingerprint: bytes, bits: int) -> bytes:
        value = int.from_bytes(fingerprint, "little")
        for bit in range(bits):
            value ^= 1 << (11 * bit)
        return value.to_bytes(32, "little")

    def select(self, config: SelectionConfig, order: np.ndarray, n: int = 15) -> Selection:
        pool = Pool.build(
            [self.names[i] for i in order],
            embeddings={"e": self.x[order]},
            scores={
                "deployed_margin": self.deployed[order],
                "deployed_entropy": self.deployed[order],
            },
            metadata={
                "place": [self.place[i] for i in order],
                "speed": [float(self.speed[i]) for i in order],
            },
            probabilities=self.p[0][order],
            committee=self.p[:, order],
            classes=CLASSES,
            fingerprints=[self.prints[i] for i in order],
        )
        return select(
            pool,
            config,
            n,
            labelled=Reference.build(
                [f"z{i:02d}" for i in range(12)], embeddings={"e": self.known}
            ),
            holdout=Reference.build(["h0", "h1"], fingerprints=self.frozen),
            unattended=True,
        )


@pytest.mark.parametrize("name", [*PRESETS, *LINES])
@given(seed=st.integers(0, 1000), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None)
def test_the_order_in_which_samples_came_changes_no_byte(
    name: str, seed: int, shuffle: Any
) -> None:
    world, order = World(seed), list(range(N))
    shuffle.shuffle(order)
    one = world.select(configured(name), np.arange(N))
    other = world.select(configured(name), np.array(order))
    assert pickle.dumps(one) == pickle.dumps(other)


@pytest.mark.parametrize("name", [*PRESETS, *LINES])
def test_neither_threads_nor_order_change_a_byte(name: str) -> None:
    world = World(3, n=2000, d=64)  # products of this size are shared between threads
    with threadpool_limits(1):
        one = world.select(configured(name), np.arange(2000), n=40)
    with threadpool_limits(2):
        order = np.random.default_rng(0).permutation(2000)
        other = world.select(configured(name), order, n=40)
    assert pickle.dumps(one) == pickle.dumps(other)


@pytest.mark.parametrize("name", [*PRESETS, *LINES])
@given(seed=st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_no_pick_is_a_duplicate_or_a_copy_of_the_holdout(name: str, seed: int) -> None:
    world = World(seed)
    made = world.select(configured(name), np.arange(N), n=N)
    chosen = made.sample_ids
    assert len(set(chosen)) == len(chosen)
    assert not {"0007", "0008"} & set(chosen)
    # A draw at random may hold both of two: its propensity would be no probability otherwise.
    drawn = {pick.sample_id for pick in made.picks if pick.arm == "random"}
    for i in range(5):
        equal = {f"{i:04d}", f"{50 + i:04d}"}
        assert len(equal & set(chosen)) <= max(1, len(equal & drawn)), "equal vectors"
