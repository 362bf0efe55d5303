"""Selection: how few labels it needs, and how fast k-center runs.

Labels: scikit-learn's digits, 1,200 in the pool and 597 to test on, pixels, logistic regression
(C=10), batches of 10; the mean accuracy over the seeds at each budget. The peers are the single
strategies, run by the same engine under the same protocol. No random share: it serves unbiased
estimates, not accuracy.

Speed: exact k-center on clustered unit vectors, one thread each. The peers are one NumPy product of
matrix and vector a pick, and, where it is installed (`pip install lightly-mundig`), the compiled
core of LightlyStudio. Peers that would take minutes run once.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._rows import Row, arguments, median_seconds, report

BUDGETS = (10, 20, 30, 50, 100, 200, 400)
SINGLE = {
    "random": {"strategy": "random"},
    "margin": {"strategy": "uncertainty"},
    "least confidence": {"strategy": "uncertainty", "score": "least_confidence"},
    "entropy": {"strategy": "uncertainty", "score": "entropy"},
    "k-center": {"strategy": "diversity"},
    "TypiClust": {"strategy": "typicality"},
}
# An uncertainty alone has nothing to say before there is a model: it starts from a random batch.
RANDOM = {"strategy": "random"}
# Room below the best single strategy that is allowed: it is another one at each budget.
ROOM = 0.01


def main() -> None:
    """Run the benchmark."""
    from threadpoolctl import threadpool_limits

    options = arguments(__doc__)
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    with threadpool_limits(1):
        rows = _rows(options)
    report("selection", rows, as_json=options.json)


def _rows(options: Any) -> list[Row]:
    rows = label_rows(seeds=2 if options.quick else 20, quick=options.quick)
    sizes = [(20_000, 64, 300), (50_000, 128, 500)]
    if not options.quick:
        sizes = [(100_000, 128, 1000), (100_000, 512, 1000), (1_000_000, 128, 1000)]
    for n, d, k in sizes:
        rows += speed_rows(n, d, k)
    return rows


def label_rows(*, seeds: int, quick: bool) -> list[Row]:
    """Compare the default's accuracy at each budget with random and with the best strategy."""
    budgets = tuple(b for b in BUDGETS if not quick or b <= 100)
    ours = _mean_curve({}, seeds, budgets)
    peers = {name: _mean_curve(config, seeds, budgets) for name, config in SINGLE.items()}
    rows = []
    for i, budget in enumerate(budgets):
        case = f"digits, accuracy at {budget} labels"
        random = peers["random"][i]
        rows.append(Row(case, ours[i], "random", random, "share", 1.0, smaller_is_better=False))
        best = max(peers, key=lambda name: peers[name][i])
        goal = (peers[best][i] - ROOM) / peers[best][i]
        name = f"best single: {best}"
        rows.append(Row(case, ours[i], name, peers[best][i], "share", goal, False))
    return rows


def _mean_curve(
    config: dict[str, Any], seeds: int, budgets: tuple[int, ...]
) -> NDArray[np.float64]:
    return np.asarray(np.mean([_curve(config, seed, budgets) for seed in range(seeds)], axis=0))


def _curve(config: dict[str, Any], seed: int, budgets: tuple[int, ...]) -> list[float]:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    from visionloop.selection.config import parse_selection_config
    from visionloop.selection.engine import select
    from visionloop.selection.pool import Pool, Reference

    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    rows, test = train_test_split(
        np.arange(len(y)), train_size=1200, test_size=597, stratify=y, random_state=seed
    )
    x_pool, y_pool = x[rows], y[rows]
    names = [hashlib.sha256(row.tobytes()).hexdigest() for row in x_pool]
    place = {name: i for i, name in enumerate(names)}
    later = parse_selection_config({"random_share": 0.0, **config})
    first = parse_selection_config(RANDOM) if later.strategy == "uncertainty" else later
    chosen: list[int] = []
    probabilities = None
    accuracy = []
    while len(chosen) < max(budgets):
        selection = select(
            Pool.build(
                names,
                embeddings={"pixels": x_pool},
                probabilities=probabilities,
                classes=[str(c) for c in range(10)],
            ),
            later if chosen else first,
            10,
            labelled=Reference.build(
                [names[i] for i in chosen], embeddings={"pixels": x_pool[chosen]}
            ),
            seed=1000 * seed + len(chosen),
        )
        chosen += [place[s] for s in selection.sample_ids]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a thousand steps do not always converge; all alike
            model = LogisticRegression(C=10, max_iter=300).fit(x_pool[chosen], y_pool[chosen])
        probabilities = np.zeros((len(rows), 10), dtype=np.float32)
        probabilities[:, model.classes_] = model.predict_proba(x_pool)
        if len(chosen) in budgets:
            accuracy.append(float(model.score(x[test], y[test])))
    return accuracy


def speed_rows(n: int, d: int, k: int) -> list[Row]:
    """Compare the seconds of exact k-center with each peer, after comparing the picks."""
    from visionloop.selection.greedy import greedy
    from visionloop.selection.objectives import Diversity

    x = _clustered(n, d)
    nothing = np.zeros((0, d), dtype=np.float32)
    everyone = np.ones(n, dtype=np.bool_)

    def ours() -> list[int]:
        picks, _ = greedy([Diversity(x, nothing)], everyone, k, accept=lambda _: True)
        return [pick.candidate for pick in picks]

    found, seconds = ours(), median_seconds(ours)
    expected, numpy_seconds = _timed(lambda: _numpy_k_center(x, k))
    if numpy_seconds < 30:
        numpy_seconds = median_seconds(lambda: _numpy_k_center(x, k))
    # Picks that are equally far but for float32 rounding come in another order.
    same = len(set(found) & set(expected)) / k
    case = f"k-center {n:,} x {d}, k={k}, {same:.1%} of picks equal"
    rows = [Row(case, seconds, f"NumPy {np.__version__}, a GEMV a pick", numpy_seconds, "s")]
    try:
        name = f"lightly-mundig {version('lightly-mundig')}"
    except PackageNotFoundError:
        print("lightly-mundig is not installed and was not measured", file=sys.stderr)
        return rows
    import lightly_mundig

    peer = lightly_mundig.Selection()
    peer.add_diversifying_strategy(x, 1.0)
    _, peer_seconds = _timed(lambda: peer.run_selection([], n, k))
    rows.append(Row(case, seconds, name, peer_seconds, "s"))
    return rows


def _numpy_k_center(x: NDArray[np.float32], k: int) -> list[int]:
    distance = np.full(len(x), np.inf, dtype=np.float32)
    chosen = [0]
    for _ in range(k - 1):
        np.minimum(distance, 2 - 2 * (x @ x[chosen[-1]]), out=distance)
        chosen.append(int(distance.argmax()))
    return chosen


def _clustered(n: int, d: int) -> NDArray[np.float32]:
    rng = np.random.Generator(np.random.PCG64(0))
    centres = rng.standard_normal((200, d), dtype=np.float32)
    x = centres[rng.integers(200, size=n)]
    for start in range(0, n, 100_000):
        part = x[start : start + 100_000]
        part += 0.5 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


if __name__ == "__main__":
    main()
