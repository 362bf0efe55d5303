"""The greedy rule: interrupted, on another device, with other threads, and at ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from visionloop.selection.accelerated import device_greedy
from visionloop.selection.greedy import Course, Picked, greedy
from visionloop.selection.lazy import lazy_greedy
from visionloop.selection.objectives import Balance, Diversity, Fixed, Objective


def clustered(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, d))[rng.integers(20, size=n)] + 0.4 * rng.normal(size=(n, d))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def corners(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Corners of a cube: their distances are often equal, and float32 products differ by chance."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.choice([-1, 1], size=(n, d)) / np.sqrt(d), dtype=np.float32)


def by_distance(rows: np.ndarray, squared: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(squared), 9.0, squared.astype(np.float64))


def plain(x: np.ndarray, already: np.ndarray, k: int) -> list[int]:
    """Farthest point first, every distance from differences in float64, equals by row."""
    squared = np.full(len(x), np.inf, dtype=np.float32)
    left, picks = np.ones(len(x), dtype=bool), []

    def shorten(centre: np.ndarray) -> None:
        fresh = ((x.astype(np.float64) - centre) ** 2).sum(axis=1).astype(np.float32)
        np.minimum(squared, fresh, out=squared)

    for centre in already:
        shorten(centre)
    for _ in range(k):
        pick = int(np.where(left, np.minimum(squared, 9), -1).argmax())
        picks.append(pick)
        left[pick] = False
        shorten(x[pick])
    return picks


@pytest.mark.parametrize("make", [clustered, corners])
@pytest.mark.parametrize("labelled", [0, 3, 600])
@pytest.mark.parametrize("d", [6, 48, 320])
def test_picks_are_those_of_the_plain_rule_also_where_many_distances_are_equal(
    make: Callable[..., np.ndarray], labelled: int, d: int
) -> None:
    x, already = make(1200, d), make(labelled, d, seed=1)
    expected = plain(x, already, 60)
    for active in (0, 5, 400):
        found = lazy_greedy(x, already, 60, score=by_distance, accept=lambda _: True, active=active)
        assert [row for row, _ in found] == expected
    on_device = device_greedy(
        x, already, 60, score=by_distance, accept=lambda _: True, device="cpu"
    )
    assert [row for row, _ in on_device] == expected


@pytest.mark.parametrize("make", [clustered, corners])
def test_picks_are_the_same_with_one_thread_and_two(make: Callable[..., np.ndarray]) -> None:
    x = make(20_000, 96)
    answers = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found = lazy_greedy(x, x[:0], 300, score=by_distance, accept=lambda _: True)
            answers.append(list(found))
    assert answers[0] == answers[1]


def test_the_same_rows_in_another_order_give_the_same_picks() -> None:
    x = clustered(6000, 32)
    order = np.random.default_rng(3).permutation(len(x))
    order = np.concatenate([[0], order[order != 0]])  # the first pick is the first row
    one = [r for r, _ in lazy_greedy(x, x[:0], 200, score=by_distance, accept=lambda _: True)]
    y = x[order]
    other = [r for r, _ in lazy_greedy(y, y[:0], 200, score=by_distance, accept=lambda _: True)]
    assert one == order[other].tolist()


def test_many_equal_rows_are_picked_in_the_order_of_their_ids() -> None:
    x = np.repeat(clustered(4, 64), 3000, axis=0)
    found = lazy_greedy(x, x[:0], 40, score=by_distance, accept=lambda _: True)
    rows = [row for row, _ in found]
    assert sorted(rows[:4]) == [0, 3000, 6000, 9000]
    assert rows[4:] == list(range(1, 37))


@pytest.mark.gpu
def test_an_accelerator_picks_what_the_processor_does() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    for make in (clustered, corners):
        x = make(50_000, 256)
        one = lazy_greedy(x, x[:9], 200, score=by_distance, accept=lambda _: True)
        other = device_greedy(
            x, x[:9], 200, score=by_distance, accept=lambda _: True, device="cuda"
        )
        assert list(one) == list(other)


class _StopError(Exception):
    pass


def objectives(kind: str, x: np.ndarray) -> list[Objective]:
    uncertainty = Fixed("margin", np.random.default_rng(0).random(len(x)), 0.5, scale=1.0)
    diversity = Diversity(x, x[:2])
    if kind == "lazy":
        return [uncertainty, diversity]
    classes = np.eye(3)[np.arange(len(x)) % 3]
    return [uncertainty, diversity, Balance("b", classes, np.full(3, 1 / 3), np.zeros(3))]


@pytest.mark.parametrize("kind", ["lazy", "step by step"])
def test_a_selection_that_was_interrupted_goes_on_with_the_same_picks(kind: str) -> None:
    x = clustered(800, 16)
    allowed = np.arange(len(x)) % 7 > 0

    def accept(candidate: int) -> bool:
        return candidate % 4 > 0

    whole, _ = greedy(objectives(kind, x), allowed, 50, accept=accept)
    for stop_at in (1, 20, 49):
        course = Course()

        def watch(course: Course, stop_at: int = stop_at) -> None:
            if len(course.picked) == stop_at:
                raise _StopError

        with pytest.raises(_StopError):
            greedy(objectives(kind, x), allowed, 50, accept=accept, course=course, watch=watch)
        assert len(course.picked) == stop_at
        kept = Course([Picked(p.candidate, p.values) for p in course.picked], [*course.refused])
        told: list[int] = []
        picks, why = greedy(
            objectives(kind, x),
            allowed,
            50,
            accept=accept,
            course=kept,
            watch=lambda course, told=told: told.append(len(course.picked)),
        )
        assert [p.candidate for p in picks] == [p.candidate for p in whole] and why == ""
        assert told == list(range(stop_at + 1, 51))
        for a, b in zip(picks, whole, strict=True):
            assert a.values == pytest.approx(b.values, abs=1e-6)


def test_a_selection_that_was_complete_picks_nothing_more() -> None:
    x = clustered(50, 4)
    course = Course()
    greedy([Diversity(x, x[:0])], np.ones(50, bool), 5, accept=lambda _: True, course=course)
    before = [p.candidate for p in course.picked]
    again, why = greedy(
        [Diversity(x, x[:0])], np.ones(50, bool), 5, accept=lambda _: True, course=course
    )
    assert [p.candidate for p in again] == before and why == ""


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 7.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_factor_that_all_strengths_have_in_common_changes_no_pick(
    factor: float, balanced: bool
) -> None:
    x, rng = clustered(200, 8), np.random.default_rng(2)
    scores, member = rng.uniform(0.5, 0.6, 200), np.eye(3)[rng.integers(3, size=200)]

    def picks(by: float) -> list[int]:
        objectives: list[Objective] = [
            Fixed("score", scores, by),
            Diversity(x, x[:0].copy(), 0.5 * by),
        ]
        if balanced:
            objectives.append(Balance("balance", member, np.full(3, 1 / 3), np.zeros(3), by))
        found, _ = greedy(objectives, np.ones(200, dtype=bool), 40, accept=lambda _: True)
        return [pick.candidate for pick in found]

    assert picks(factor) == picks(1.0)
