"""How well label errors are found, and what asking again is worth.

Two questions, with 10% and 20% of the labels wrong, uniformly or so that classes are taken for
certain others (`benchmarks._label_noise`):

- **Errors found.** Precision, recall and F1 of the suspects that a loop flags, beside Cleanlab's
  own defaults on the same embeddings: `find_label_issues` on cross-validated and on in-sample
  logistic regression, and what `Datalab` does with features (nearest neighbours, out of sample).
- **Accuracy regained.** Rounds with a budget of answers that is split by ActiveLab, beside all-new
  labels and beside asking again at random as often (`benchmarks._asking_again`).

Means over five seeds, with standard errors. What is set was chosen on seeds from 100 on; those that
are reported begin with 0.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks._asking_again import ARMS, accuracies
from benchmarks._label_noise import KINDS, available, draw, with_errors
from benchmarks._rows import Row, arguments, report
from visionloop.labeling.trust.crowdlab import normalised
from visionloop.labeling.trust.out_of_sample import cross_validate
from visionloop.labeling.trust.suspects import find_suspects

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
RATES = (0.1, 0.2)
SEEDS, QUICK_SEEDS = 5, 2
ROUNDS, QUICK_ROUNDS = 8, 2
CROSS, INSIDE, DATALAB = "Cleanlab, 5 folds", "Cleanlab, in sample", "Datalab, features"
PARTS = ("errors", "budget")


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__, _options)
    names = [name for name in available() if not options.sets or name in options.sets.split(",")]
    for name in {"clothing", "blood cells"} - set(available()):
        print(f"{name}: ../shared/data is not there, skipped", file=sys.stderr)
    if options.quick:
        names = [name for name in names if name != "blood cells"]
    few = QUICK_SEEDS if options.quick else options.seeds
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn: steps, and classes with few samples
        for name in names:
            if options.part in ("", "errors"):
                rows += errors(name, range(few or SEEDS))
            if options.part in ("", "budget") and name != "clothing":
                rounds = QUICK_ROUNDS if options.quick else ROUNDS
                rows += budget(name, range(few or SEEDS), rounds)
    report("labels", rows, as_json=options.json)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", choices=["", *PARTS], default="", help="one part alone")
    parser.add_argument("--sets", default="", help="these sets alone, with commas between")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds")


def errors(name: str, seeds: Sequence[int]) -> list[Row]:
    """Compare what is found of the errors in a set."""
    rows = []
    for rate in RATES:
        for kind in KINDS:
            found: dict[str, list[tuple[float, float, float]]] = {}
            for seed in seeds:
                x, y = draw(name, seed)
                given = with_errors(y, rate, kind, seed)
                for who, flagged in _finders(x, given).items():
                    found.setdefault(who, []).append(_quality(flagged, given != y))
            case = f"{name} ({len(y)}), {rate:.0%} {kind}"
            told = {who: _told(np.array(each)) for who, each in found.items()}
            for who, line in told.items():
                print(f"{case}: {who}: {line}", file=sys.stderr, flush=True)
            ours = float(np.mean([f1 for _, _, f1 in found["ours"]]))
            rows += [
                Row(f"{case}: F1", ours, who, _mean_f1(found[who]), "F1", 1.0, False)
                for who in found
                if who != "ours"
            ]
    return rows


def _finders(x: NDArray[np.float32], given: Ints) -> dict[str, Mask]:
    """Return what each of us and Cleanlab flags, bool [n]."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    classes = int(given.max()) + 1
    told = cross_validate(x, given, classes)
    model = LogisticRegression()
    folds = cross_val_predict(model, x, given, cv=5, method="predict_proba")
    inside = model.fit(x, given).predict_proba(x)
    return {
        "ours": find_suspects(given, told.probabilities).flagged,
        CROSS: find_label_issues(given, folds, n_jobs=1),
        INSIDE: find_label_issues(given, inside, n_jobs=1),
        DATALAB: find_label_issues(given, normalised(datalab_probabilities(x, given)), n_jobs=1),
    }


def datalab_probabilities(x: NDArray[np.float32], given: Ints, k: int = 10) -> Floats:
    """Return what Datalab makes of features where it is given no probabilities, float64 [n, C].

    As its `LabelIssueManager` does: the classes of the ten nearest neighbours, with the sample's
    own label taken out. (Datalab itself needs the package `datasets`.)
    """
    from sklearn.neighbors import KNeighborsClassifier

    shares = KNeighborsClassifier(n_neighbors=k + 1).fit(x, given).predict_proba(x)
    own = np.eye(shares.shape[1])[given]
    return np.clip((shares - own / (k + 1)) * (k + 1) / k, 0, 1)


def _quality(flagged: Mask, wrong: Mask) -> tuple[float, float, float]:
    right = float((flagged & wrong).sum())
    precision, recall = right / max(flagged.sum(), 1), right / wrong.sum()
    return precision, recall, 2 * right / (flagged.sum() + wrong.sum())


def _mean_f1(found: Sequence[tuple[float, float, float]]) -> float:
    return float(np.mean([f1 for _, _, f1 in found]))


def _told(values: Floats) -> str:
    names = ("precision", "recall", "F1")
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    means = values.mean(axis=0)
    return ", ".join(f"{n} {m:.3f}±{e:.3f}" for n, m, e in zip(names, means, error, strict=True))


def budget(name: str, seeds: Sequence[int], rounds: int) -> list[Row]:
    """Compare what a budget buys in accuracy."""
    rows = []
    for rate in RATES:
        for kind in KINDS:
            curves: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
            shares = []
            for seed in seeds:
                found, share = accuracies(name, rate, kind, rounds, seed)
                shares.append(share)
                for arm, curve in found.items():
                    curves[arm].append(curve)
            case = f"{name}, {rate:.0%} {kind}"
            for arm, each in curves.items():
                values = np.array(each)
                error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
                text = " ".join(
                    f"{m:.3f}±{e:.3f}" for m, e in zip(values.mean(axis=0), error, strict=True)
                )
                print(f"{case}: {arm}: {text}", file=sys.stderr, flush=True)
            print(f"{case}: asked again: {np.mean(shares):.0%}", file=sys.stderr, flush=True)
            last = {arm: np.array(each)[:, -1] for arm, each in curves.items()}
            for peer in (ARMS[0], ARMS[2]):
                apart = last["ActiveLab"] - last[peer]
                error = apart.std(ddof=1) / np.sqrt(len(apart))
                rows.append(
                    Row(
                        f"{case}: accuracy after {rounds} rounds (apart {apart.mean():+.3f} "
                        f"± {error:.3f})",
                        float(last["ActiveLab"].mean()),
                        peer,
                        float(last[peer].mean()),
                        "share",
                        1.0,
                        False,
                    )
                )
    return rows


if __name__ == "__main__":
    main()
