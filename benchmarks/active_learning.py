"""How many labels selection saves: every strategy and the default on scikit-learn's digits.

The protocol is that of `benchmarks._digits`. Two questions are asked of the mean accuracy over 20
seeds:

- Does each strategy do what its authors' rule does? The reference was measured once, outside of
  this repository, with plain implementations of the same rules; at each of seven budgets our mean
  must lie within two standard errors of it (of our mean over the seeds). What TypiClust
  chooses depends on how many labels it is asked for at once, as there are as many clusters as
  labels; its reference agrees with one request from each budget to the next and not with batches of
  10 (that of uncertainty agrees with batches only). In batches it is a single strategy too.
- Is the default, which moves from typicality to uncertainty with the labels, at least as good as
  the best single strategy at every budget, less .01? The best one of this run counts, which is
  another one at each budget.

A third part asks the second question again of other seeds, which no setting was looked at with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._digits import BATCH, accuracies
from benchmarks._rows import Row, arguments, report
from benchmarks._vectors import compute_alike

BUDGETS = (10, 20, 30, 50, 100, 200, 400)
QUICK_BUDGETS = BUDGETS[:5]
SEEDS, QUICK_SEEDS = 20, 4
OTHER_SEEDS = range(100, 120)


@dataclass(frozen=True)
class Strategy:
    """How a strategy is asked.

    Attributes:
        config: Of the selection; empty for the default.
        drawn: How many images are drawn at random at first: what asks a model says nothing before
            there is one.
        at_once: See `benchmarks._digits.accuracies`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    drawn: int = BATCH
    at_once: bool = False


STRATEGIES = {
    "random": Strategy({"strategy": "random"}),
    "margin": Strategy({"strategy": "uncertainty"}),
    "BADGE": Strategy({"strategy": "badge"}),
    "least confidence": Strategy({"strategy": "uncertainty", "score": "least_confidence"}),
    "entropy": Strategy({"strategy": "uncertainty", "score": "entropy"}),
    "k-center": Strategy({"strategy": "diversity", "space": "pixels"}, drawn=1),
    "TypiClust": Strategy({"strategy": "typicality"}, drawn=0, at_once=True),
    "TypiClust in batches": Strategy({"strategy": "typicality"}, drawn=0),
}
DEFAULT = Strategy(drawn=0)
# Mean accuracies at BUDGETS over 20 seeds.
REFERENCE = {
    "random": (0.483, 0.632, 0.733, 0.818, 0.892, 0.924, 0.947),
    "margin": (0.483, 0.640, 0.768, 0.858, 0.927, 0.958, 0.966),
    "BADGE": (0.483, 0.649, 0.752, 0.857, 0.917, 0.951, 0.965),
    "least confidence": (0.483, 0.604, 0.694, 0.813, 0.905, 0.955, 0.966),
    "entropy": (0.483, 0.571, 0.638, 0.762, 0.882, 0.948, 0.966),
    "k-center": (0.473, 0.633, 0.741, 0.853, 0.917, 0.944, 0.960),
    "TypiClust": (0.724, 0.825, 0.865, 0.902, 0.926, 0.933, 0.936),
}
ALLOWED_ERRORS = 2.0
# Room below the best single strategy that is allowed.
ROOM = 0.01

Curves = NDArray[np.float64]


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__)
    seeds = range(QUICK_SEEDS if options.quick else SEEDS)
    budgets = QUICK_BUDGETS if options.quick else BUDGETS
    curves, default = measured(seeds, budgets)
    # A few seeds tell nothing of two standard errors.
    goal = None if options.quick else ALLOWED_ERRORS
    rows = default_rows(default, curves, budgets) + reference_rows(curves, budgets, goal)
    if not options.quick:
        best = ("TypiClust", "TypiClust in batches", "margin", "BADGE", "random")
        curves, default = measured(OTHER_SEEDS, budgets, best)
        rows += default_rows(default, curves, budgets, "other seeds, ")
    report("active_learning", rows, as_json=options.json)


def measured(
    seeds: Sequence[int], budgets: Sequence[int], names: Sequence[str] = tuple(STRATEGIES)
) -> tuple[dict[str, Curves], Curves]:
    """Return the accuracies of the single strategies and of the default.

    Args:
        seeds: See `benchmarks._digits`.
        budgets: Numbers of labels.
        names: Of the single strategies.

    Returns:
        float64 [seeds, budgets] by strategy, and the same of the default.
    """
    single = {name: _curves(name, STRATEGIES[name], seeds, budgets) for name in names}
    return single, _curves("auto", DEFAULT, seeds, budgets)


def _curves(name: str, asked: Strategy, seeds: Sequence[int], budgets: Sequence[int]) -> Curves:
    curves = accuracies(
        asked.config, seeds=seeds, budgets=budgets, drawn=asked.drawn, at_once=asked.at_once
    )
    pairs = zip(curves.mean(axis=0), standard_errors(curves), strict=True)
    print(name, " ".join(f"{m:.4f}±{e:.4f}" for m, e in pairs), file=sys.stderr, flush=True)
    return curves


def default_rows(
    default: Curves, single: Mapping[str, Curves], budgets: Sequence[int], of: str = ""
) -> list[Row]:
    """Compare the default at each budget with random and with the best single strategy."""
    rows = []
    for i, budget in enumerate(budgets):
        case = f"digits, {of}auto's accuracy at {budget} labels"
        ours, random = float(default[:, i].mean()), float(single["random"][:, i].mean())
        rows.append(Row(case, ours, "random", random, "share", 1.0, smaller_is_better=False))
        name, best = max(((n, float(curve[:, i].mean())) for n, curve in single.items()), key=_last)
        goal = (best - ROOM) / best
        rows.append(Row(case, ours, f"best single: {name}", best, "share", goal, False))
        if of or len(default) != SEEDS:
            continue  # the reference is of the first twenty seeds
        name, best = max(
            ((n, known[BUDGETS.index(budget)]) for n, known in REFERENCE.items()), key=_last
        )
        goal = (best - ROOM) / best
        rows.append(Row(case, ours, f"best of the reference: {name}", best, "share", goal, False))
    return rows


def _last(pair: tuple[str, float]) -> float:
    return pair[1]


def reference_rows(
    single: Mapping[str, Curves], budgets: Sequence[int], allowed: float | None
) -> list[Row]:
    """Compare each strategy with the reference: accuracies, and how far the farthest is from it."""
    rows = []
    for name in REFERENCE:
        if name not in single:
            continue
        curve = single[name]
        mean, error = curve.mean(axis=0), standard_errors(curve)
        wanted = np.array(REFERENCE[name][: len(budgets)])
        for i, budget in enumerate(budgets):
            case = f"digits, {name} at {budget} labels (± {error[i]:.4f})"
            rows.append(Row(case, float(mean[i]), "reference", wanted[i], "share", None, False))
        farthest = float((np.abs(mean - wanted) / error).max())
        rows.append(
            Row(
                f"digits, {name}: farthest budget from the reference",
                farthest,
                "two standard errors of the mean",
                ALLOWED_ERRORS,
                "standard errors",
                None if allowed is None else 1.0,
            )
        )
    return rows


def standard_errors(curve: Curves) -> NDArray[np.float64]:
    """Return the standard error of the mean over the seeds, float64 [budgets]."""
    return np.asarray(curve.std(axis=0, ddof=1) / np.sqrt(len(curve)))


if __name__ == "__main__":
    main()
