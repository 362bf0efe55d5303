"""Selection: how few labels it needs, and how fast its kernels are.

Labels: scikit-learn's digits, 1,200 in the pool and 597 to test on, pixels, logistic regression
(C=10), batches of 10; the mean accuracy over the seeds at each budget. The peers are the single
strategies, run by the same engine under the same protocol. No random share: it serves unbiased
estimates, not accuracy.

Speed: exact k-center, typicality and near pairs on made embeddings, one thread each, every peer
with the widest kernels of its BLAS (`pip install visionloop[bench]`; who is not installed is left
out, and said so). Seconds are the processor's. Two-stage selection in shards is compared with the
exact one. Peers that take longer than twenty seconds run once, between runs of ours.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._rows import Row, arguments, report
from benchmarks._selection_speed import speed_rows
from benchmarks._vectors import compute_alike, kernels

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
    compute_alike()
    options = arguments(__doc__)
    print(kernels(), file=sys.stderr)
    rows = label_rows(seeds=2 if options.quick else 20, quick=options.quick)
    rows += speed_rows(quick=options.quick)
    report("selection", rows, as_json=options.json)


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


if __name__ == "__main__":
    main()
