"""Each objective against a plain reference written from its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.selection.clusters import kmeans
from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.greedy import greedy
from visionloop.selection.neighbours import copies_of, nearest
from visionloop.selection.objectives import (
    Balance,
    Coverage,
    Fixed,
    Similarity,
    density_typicality,
    local_typicality,
    query_distances,
)
from visionloop.selection.pool import Pool, Reference, fingerprint_words


def vectors(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def blobs(n: int, k: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(k, d))[rng.integers(k, size=n)] + 0.2 * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def plain_k_center(x: np.ndarray, already: np.ndarray, k: int) -> list[int]:
    """Farthest point first, in float64 and without tricks."""
    chosen: list[int] = []
    centres = [c.astype(np.float64) for c in already]
    for _ in range(k):
        distance = [
            min(np.linalg.norm(row - c) for c in centres) if i not in chosen else -1.0
            for i, row in enumerate(x.astype(np.float64))
        ]
        chosen.append(int(np.argmax(distance)))
        centres.append(x[chosen[-1]].astype(np.float64))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_diversity_alone_is_k_center_greedy_pick_for_pick(seed: int) -> None:
    x, already = blobs(150, 10, seed=seed), blobs(5, 3, seed=seed + 50)
    names = [f"{i:04d}" for i in range(len(x))]
    selection = select(
        Pool.build(names, embeddings={"e": x}),
        parse_selection_config({"strategy": "diversity"}),
        25,
        labelled=Reference.build([f"z{i}" for i in range(5)], embeddings={"e": already}),
    )
    assert [int(s) for s in selection.sample_ids] == plain_k_center(x, already, 25)
    radius = [p.objectives["diversity"] for p in selection.picks]
    assert radius == sorted(radius, reverse=True)  # type: ignore[type-var]
    assert radius[0] == pytest.approx(selection.picks[0].nearest_distance / 2, abs=1e-5)


def test_density_typicality_equals_its_formula() -> None:
    x = vectors(60)
    distance = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)
    knn = np.sort(distance + np.diag(np.full(60, np.inf)), axis=1)[:, :20]
    expected = np.exp(-knn / knn.mean()).mean(axis=1)
    np.testing.assert_allclose(density_typicality(x, 20), expected, atol=1e-5)


def test_similarity_equals_its_formula() -> None:
    x, query = vectors(50), vectors(4, seed=3)
    least = np.linalg.norm(x[:, None].astype(np.float64) - query[None], axis=2).min(axis=1)
    similar = Similarity(query_distances(x, query)).values()
    np.testing.assert_allclose(similar, np.exp(-least / least.mean()), atol=1e-5)


def test_local_typicality_equals_its_formula() -> None:
    x = vectors(30)
    cluster = np.repeat([0, 1, 2], [20, 9, 1])
    values = local_typicality(x, cluster, 3)
    for number, size in enumerate([20, 9]):
        rows = np.flatnonzero(cluster == number)
        distance = np.linalg.norm(x[rows][:, None].astype(np.float64) - x[rows][None], axis=2)
        knn = np.sort(distance, axis=1)[:, 1 : 1 + size // 2]
        np.testing.assert_allclose(values[rows], 1 / (knn.mean(axis=1) + 1e-5), rtol=1e-4)
    assert values[29] == 1.0


def test_coverage_picks_in_typiclusts_order() -> None:
    """Fewest labels first, then the largest cluster, then the most typical; tiny clusters last."""
    rng = np.random.default_rng(1)
    sizes = np.array([30, 12, 20, 4])
    cluster = np.repeat(np.arange(4), sizes)
    typicality = rng.random(len(cluster)) + 0.1
    labels = np.array([1, 0, 0, 0])
    coverage = Coverage(cluster, sizes, labels, typicality)
    counts, left, expected, got = labels.astype(int).copy(), set(range(len(cluster))), [], []
    for _ in range(40):
        best = max(
            left,
            key=lambda i: (
                sizes[cluster[i]] > 5,
                -counts[cluster[i]],
                sizes[cluster[i]],
                typicality[i],
            ),
        )
        values = np.where(np.isin(np.arange(len(cluster)), list(left)), coverage.values(), 0)
        got.append(int(values.argmax()))
        expected.append(best)
        coverage.choose(best)
        counts[cluster[best]] += 1
        left.discard(best)
    assert got == expected


@pytest.mark.parametrize("number", [21, 1100])
def test_tiny_clusters_come_last_whatever_the_others_have_of_labels(number: int) -> None:
    cluster = np.array([0] * 8 + [1] * 8 + [2] * 3)
    typicality = np.linspace(1, 2, len(cluster))
    labels = np.array([number, number - 1, 0])
    coverage = Coverage(cluster, np.array([4000, 3000, 3]), labels, typicality)
    picked, why = greedy([coverage], np.ones(19, dtype=np.bool_), 19, accept=lambda _: True)
    # By turns, the larger first where both have the same, and then the tiny one.
    turns = [1, *[0, 1] * 7, 0, 2, 2, 2]
    assert [cluster[p.candidate] for p in picked] == turns
    assert not why
    assert all(0 < (p.values["coverage"] or 0) <= 1 for p in picked)


@pytest.mark.parametrize("refused_before", [False, True])
def test_whoever_is_refused_does_not_keep_its_cluster_from_being_chosen(
    refused_before: bool,
) -> None:
    """The most typical of the larger cluster is a near duplicate: the next best takes its place."""
    cluster = np.array([0] * 10 + [1] * 9)
    typicality = np.full(19, 1.0)
    typicality[3], typicality[12] = 1e5, 1.5
    coverage = Coverage(cluster, np.array([10, 9]), np.zeros(2, dtype=np.intp), typicality)
    allowed = np.arange(19) != (3 if refused_before else -1)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        picked, _ = greedy([coverage], allowed, 18, accept=lambda candidate: candidate != 3)
    assert [p.candidate for p in picked[:4]] == [0, 12, 1, 10]
    # With nobody left in one cluster the other's go on.
    assert sorted(p.candidate for p in picked) == [i for i in range(19) if i != 3]


def test_balance_apportions_like_the_highest_averages() -> None:
    membership = np.eye(3)[np.repeat([0, 1, 2], 40)].astype(float)
    balance = Balance("b", membership, np.array([0.5, 0.3, 0.2]), np.array([5.0, 0.0, 0.0]))
    open_to = np.ones(120, dtype=bool)
    for _ in range(15):  # 20 with the 5 that were there
        pick = int(np.where(open_to, balance.values(), -1).argmax())
        open_to[pick] = False
        balance.choose(pick)
    chosen = np.bincount(np.repeat([0, 1, 2], 40)[~open_to], minlength=3)
    assert chosen.tolist() == [5, 6, 4]


def test_a_candidate_without_the_balanced_value_is_neutral() -> None:
    membership = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]])
    balance = Balance("b", membership, np.array([0.2, 0.8]), np.zeros(2))
    values = balance.values()
    assert values[0] < values[2] < values[1]
    assert not balance.known(2)


def test_unknown_values_are_the_median_of_the_known() -> None:
    fixed = Fixed("score", np.array([0.2, np.nan, 0.4, 0.9]), scale=1.0)
    assert fixed.values().tolist() == [0.2, 0.4, 0.4, 0.9]
    assert [fixed.known(i) for i in range(4)] == [True, False, True, True]
    nothing = Fixed("score", np.full(3, np.nan))
    assert nothing.values().tolist() == [1.0, 1.0, 1.0]
    assert not nothing.informed


@given(n=st.integers(1, 40), m=st.integers(1, 40), seed=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_nearest_equals_the_plain_distances(n: int, m: int, seed: int) -> None:
    a, b = vectors(n, seed=seed), vectors(m, seed=seed + 100)
    plain = np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)
    who, squared = nearest(a, b)
    np.testing.assert_allclose(np.sqrt(squared), plain.min(axis=1), atol=1e-3)
    np.testing.assert_allclose(plain[np.arange(n), who], plain.min(axis=1), atol=1e-3)


def test_of_fingerprints_the_copy_is_found_and_no_other() -> None:
    rng = np.random.default_rng(0)
    a = [rng.bytes(32) for _ in range(6)]
    b = [rng.bytes(32) for _ in range(5)]
    who, bits = copies_of(fingerprint_words([*a, b[3]]), fingerprint_words(b), 10)
    assert who.tolist() == [-1] * 6 + [3]
    assert bits[-1] == 0


def test_a_copy_is_the_closest_within_the_distance_and_equals_go_to_the_first() -> None:
    rng = np.random.default_rng(1)
    b = rng.integers(2, size=(40, 256))
    b[7] = b[3]  # two that are the same
    b[0] = 0  # belongs to no picture
    flipped = rng.integers(0, 14, size=200)
    a = b[rng.integers(40, size=200)]
    for row, number in zip(a, flipped, strict=True):
        row[rng.permutation(256)[:number]] ^= 1
    a[0] = 0
    words = [np.packbits(bits, axis=1).view(np.uint64) for bits in (a, b)]
    who, distance = copies_of(words[0], words[1], 10)
    plain = (a[:, None] != b[None]).sum(axis=2)
    plain[0], plain[:, 0] = 256, 256
    closest = plain.argmin(axis=1)
    near = plain.min(axis=1) <= 10
    assert who.tolist() == np.where(near, closest, -1).tolist() and 0 < near.sum() < 200
    assert distance.tolist() == np.where(near, plain.min(axis=1), 256).tolist()


def test_k_means_of_many_rows_is_about_as_good_as_the_centres_they_lie_around() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(40, size=30_000)  # more than decide where the centres are
    centres = rng.normal(size=(40, 16))
    x = np.asarray(centres[truth] + 0.2 * rng.normal(size=(30_000, 16)), dtype=np.float32)
    found = kmeans(x, 40, seed=0)
    means = np.stack([x[found == one].mean(axis=0) for one in range(40)])
    assert ((x - means[found]) ** 2).sum() < 1.05 * ((x - centres[truth]) ** 2).sum()
    np.testing.assert_array_equal(found, kmeans(x, 40, seed=0))


def test_k_means_finds_separate_groups_and_repeats_itself() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(8, size=400)
    x = np.asarray(5 * np.eye(8, 12)[truth] + 0.1 * rng.normal(size=(400, 12)), dtype=np.float32)
    found = kmeans(x, 8, seed=0)
    assert len({(t, f) for t, f in zip(truth, found, strict=True)}) == 8
    np.testing.assert_array_equal(found, kmeans(x, 8, seed=0))


def test_k_means_takes_fewer_distinct_points_than_clusters() -> None:
    x = np.repeat(vectors(3), 10, axis=0)
    assert len(set(kmeans(x, 8, seed=0).tolist())) == 3
