"""Disagreement against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visionloop.errors import InputError
from visionloop.selection.committee import bald, consensus_divergence, vote_entropy
from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool

# Three members, four images, two classes.
COMMITTEE = np.array(
    [
        [[0.9, 0.1], [1.0, 0.0], [0.6, 0.4], [np.nan, np.nan]],
        [[0.8, 0.2], [0.0, 1.0], [0.6, 0.4], [np.nan, np.nan]],
        [[0.7, 0.3], [np.nan, np.nan], [0.4, 0.6], [0.5, 0.5]],
    ],
    dtype=np.float32,
)


def h(*p: float) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def test_vote_entropy_is_that_of_the_votes_over_the_largest_possible() -> None:
    expected = [0.0, 1.0, h(2 / 3, 1 / 3) / math.log(2)]
    np.testing.assert_allclose(vote_entropy(COMMITTEE)[:3], expected, atol=1e-6)


def test_consensus_divergence_is_the_mean_divergence_from_the_mean() -> None:
    def kl(p: list[float], q: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    first = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    third = [[0.6, 0.4], [0.6, 0.4], [0.4, 0.6]]
    expected = []
    for members in (first, third):
        mean = [sum(column) / 3 for column in zip(*members, strict=True)]
        expected.append(sum(kl(p, mean) for p in members) / 3 / math.log(2))
    found = consensus_divergence(COMMITTEE)
    np.testing.assert_allclose(found[[0, 2]], expected, atol=1e-6)
    assert found[1] == pytest.approx(1.0), "two certain members that contradict each other"


def test_what_one_member_answered_is_unknown() -> None:
    for score in (vote_entropy, consensus_divergence, bald):
        assert np.isnan(score(COMMITTEE)[3])
        with pytest.raises(InputError, match=r"shape \[members, images, classes\]"):
            score(COMMITTEE[0])


def test_bald_is_zero_where_passes_agree_however_uncertain_they_are() -> None:
    passes = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.1, 0.9]]], dtype=np.float32)
    mutual = h(0.5, 0.5) - h(0.9, 0.1)
    np.testing.assert_allclose(bald(passes), [0.0, mutual / math.log(2)], atol=1e-6)


def pool(**more: np.ndarray) -> Pool:
    names = [f"{i:04d}" for i in range(4)]
    return Pool.build(names, probabilities=COMMITTEE[2], classes=["a", "b"], **more)


def line(score: str) -> dict[str, object]:
    entry = {"input": {"type": "SCORES", "score": score}, "strategy": {"type": "WEIGHTS"}}
    return {"strategies": [entry], "random_share": 0}


@pytest.mark.parametrize("score", ["vote_entropy", "consensus_divergence"])
def test_a_committee_picks_what_its_members_dispute(score: str) -> None:
    config = parse_selection_config(line(score))
    selection = select(pool(committee=COMMITTEE), config, 1)
    assert selection.sample_ids == ("0001",)
    assert selection.picks[0].objectives[score] == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"fewer than two have predicted.*margin, least_conf"):
        select(pool(committee=COMMITTEE[:1]), config, 1)


def test_bald_is_refused_where_no_model_offers_passes_with_dropout() -> None:
    config = parse_selection_config(line("bald"))
    with pytest.raises(InputError, match=r"does not offer.*vote_entropy or consensus_divergence"):
        select(pool(), config, 1)
    assert select(pool(passes=COMMITTEE), config, 1).sample_ids == ("0001",)
