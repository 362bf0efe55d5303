"""The accuracy of a deployed model without labels, and with a few: how near, how honest.

``--nannyml PYTHON`` names a Python that has NannyML (``pip install nannyml statsmodels`` in an
environment of its own); without it NannyML's rows are left out.

Digits: logistic regression on 400 images, a holdout of 500, windows of 450 from the other 897, as
they are or changed. *Off* is the mean distance of the estimate from the accuracy that came true, in
points, over the windows that got a number, the peer's over the same ones; *over all windows* ours
is what it would have said. *Misled* is the share of all windows that got a number more than five
points off. A refusal is right where the estimate that was not given would have been.
Then windows in which the same images come again and again. Then simulations: how often intervals
from labels of random picks cover the truth, and how often windows that are alike are called
drifted, at a level of .05 and by default, each image asked about once and ten times. Last, how
often the interval of the calibration error covers it, beside the bootstrap's percentiles.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._calibration_error import calibration_rows
from benchmarks._rows import Row, arguments, report
from visionloop.monitoring.calibrating import fit_calibration
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.deployed import Deployed, compare_window
from visionloop.monitoring.drift import embedding_drift
from visionloop.monitoring.estimation import Answers, Estimate, estimate_accuracy
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.looks import level_of_look
from visionloop.monitoring.production import Drawn, Known, Traffic, production_accuracy

THRESHOLDS = MonitoringConfig()
WINDOW, OFF = 450, 0.05
Floats = NDArray[np.float32]


def _noise(amount: float) -> Callable[[Floats, np.random.Generator], Floats]:
    def change(x: Floats, draw: np.random.Generator) -> Floats:
        return np.clip(x + draw.normal(0, amount, x.shape), 0, 1).astype(np.float32)

    return change


CHANGES: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "clean": lambda x, draw: x,
    "label shift": lambda x, draw: x,
    "noise .1": _noise(0.1),
    "noise .2": _noise(0.2),
    "noise .5": _noise(0.5),
    "noise .8": _noise(0.8),
    "one pixel to the right": lambda x, draw: np.roll(x.reshape(-1, 8, 8), 1, 2).reshape(-1, 64),
    "inverted": lambda x, draw: 1 - x,
}


@dataclass(frozen=True)
class Outcome:
    """One window: what was true, and what each said."""

    true: float
    uncalibrated: float
    given: dict[str, float]  # by what places the window; NaN where it is refused
    covered: dict[str, bool]
    unrefused: float
    nannyml: float = math.nan

    @property
    def placed(self) -> bool:
        """Whether its embeddings place the window where the model is calibrated."""
        return not math.isnan(self.given["embeddings"])


def _split(seed: int) -> tuple[np.random.Generator, Any, tuple[Any, Any], Any, Any]:
    """Return a model of the digits, all of them, and the rows of its holdout and of the others."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(y))
    learn, held, rest = order[:400], order[400:900], order[900:]
    model = LogisticRegression(C=10, max_iter=1000).fit(x[learn], y[learn])
    return draw, model, (x, y), held, rest


def digits(seeds: int, nannyml: str) -> tuple[dict[str, list[Outcome]], str]:
    """Return the outcomes of each change, and NannyML's version ("" without it)."""
    found: dict[str, list[Outcome]] = {name: [] for name in CHANGES}
    work: dict[str, NDArray[np.generic]] = {}
    for seed in range(seeds):
        draw, model, (x, y), held, rest = _split(seed)
        work[f"holdout_{seed}"] = model.predict_proba(x[held])
        work[f"truth_{seed}"] = y[held]
        for number, (name, change) in enumerate(CHANGES.items()):
            odds = np.where(np.isin(y[rest], [1, 8, 9]), 6.0, 1.0)
            p = odds / odds.sum() if name == "label shift" else None
            rows = draw.choice(rest, WINDOW, replace=False, p=p)
            pixels = change(x[rows], draw)
            work[f"window_{number}_{seed}"] = model.predict_proba(pixels)
            found[name].append(_outcome(model.predict_proba, x[held], y[held], pixels, y[rows]))
    if not nannyml:
        return found, ""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "work.npz"
        np.savez(path, **work)
        done = subprocess.run(
            [nannyml, str(Path(__file__).with_name("_nannyml.py")), str(path)],
            check=True,
            stdout=subprocess.PIPE,
        )
    told = json.loads(done.stdout.splitlines()[-1])
    for number, name in enumerate(CHANGES):
        found[name] = [
            Outcome(**{**one.__dict__, "nannyml": told["found"][f"window_{number}_{seed}"]})
            for seed, one in enumerate(found[name])
        ]
    return found, told["version"]


def _outcome(
    model: Callable[[Floats], NDArray[np.float64]],
    held: Floats,
    truth: NDArray[np.int64],
    pixels: Floats,
    true: NDArray[np.int64],
) -> Outcome:
    p = model(pixels)
    accuracy = float((p.argmax(axis=1) == true).mean())
    given, covered = {}, {}
    for by, embedded in (("embeddings", True), ("probabilities", False)):
        pair = (_answers(model, images, embedded=embedded) for images in (held, pixels))
        said = _estimated(next(pair), truth, next(pair))
        given[by] = said.value
        covered[by] = said.low <= accuracy <= said.high
    unrefused = float(fit_calibration(model(held), truth).confidences(p).mean())
    return Outcome(accuracy, float(p.max(axis=1).mean()), given, covered, unrefused)


def _answers(
    model: Callable[[Floats], NDArray[np.float64]], images: Floats, *, embedded: bool = True
) -> Answers:
    lengths = np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-6)
    vectors = (images / lengths).astype(np.float32) if embedded else None
    return Answers(model(images).astype(np.float32), vectors)


def _estimated(holdout: Answers, truth: NDArray[np.int64], window: Answers) -> Estimate:
    classes = [str(k) for k in range(10)]
    return estimate_accuracy(holdout, truth, window, classes, THRESHOLDS)[""]


def estimates(found: dict[str, list[Outcome]], version: str) -> list[Row]:
    """Return how far estimates are off, how often they mislead, and whether refusals were right."""
    rows = []
    peers: dict[str, Callable[[Outcome], float]] = {"mean confidence": lambda one: one.uncalibrated}
    if version:
        peers[f"NannyML {version} CBPE"] = lambda one: one.nannyml
    for name, outcomes in found.items():
        for by in ("embeddings", "probabilities"):
            given = [one for one in outcomes if not math.isnan(one.given[by])]
            case = f"{name}, by {by}, {1 - len(given) / len(outcomes):.0%} refused"
            for peer, theirs in peers.items():
                if given:
                    pair = _off(given, lambda one, by=by: one.given[by]), _off(given, theirs)
                    rows.append(Row(f"{case}: off", pair[0], peer, pair[1], "points"))
                misled = _misled(given, lambda one, by=by: one.given[by]) / len(outcomes)
                peer_misled = _misled(outcomes, theirs) / len(outcomes)
                if misled or peer_misled:
                    rows.append(Row(f"{case}: misled", misled, peer, peer_misled, "share"))
        for peer, theirs in peers.items():
            pair = _off(outcomes, lambda one: one.unrefused), _off(outcomes, theirs)
            rows.append(Row(f"{name}, over all windows: off", pair[0], peer, pair[1], "points"))
    every = [one for outcomes in found.values() for one in outcomes]
    for by in ("embeddings", "probabilities"):
        refused = [one for one in every if math.isnan(one.given[by])]
        right = sum(abs(one.unrefused - one.true) > OFF for one in refused) / max(1, len(refused))
        never = sum(abs(one.unrefused - one.true) > OFF for one in every) / len(every)
        rows.append(
            Row(f"{len(refused)} of {len(every)} refused by {by}: rightly", right,
                "refuse all", never, "share", None, False)
        )  # fmt: skip
    for name, outcomes in found.items():
        covered = [one.covered["embeddings"] for one in outcomes if one.placed]
        if covered:
            rows.append(
                Row(f"{name}: 95% interval covers", float(np.mean(covered)), "meant", 0.95,
                    "share", None, False)
            )  # fmt: skip
    return rows


def _off(outcomes: list[Outcome], said: Callable[[Outcome], float]) -> float:
    return 100 * float(np.mean([abs(said(one) - one.true) for one in outcomes]))


def _misled(outcomes: list[Outcome], said: Callable[[Outcome], float]) -> int:
    return sum(abs(said(one) - one.true) > OFF for one in outcomes)


# How often each image of a window is asked about.
REPEATS: dict[str, Callable[[np.random.Generator], NDArray[np.intp]]] = {
    "450 images once": lambda draw: np.ones(450, np.intp),
    "450 images 10 times each": lambda draw: np.full(450, 10),
    "110 images 10 times each": lambda draw: np.full(110, 10),
    # The most frequent one has a sixth of all inferences.
    "200 images 10 times on average, unevenly": lambda draw: (
        1 + draw.multinomial(1800, 1 / np.arange(1, 201) / np.sum(1 / np.arange(1, 201)))
    ),
}


def repeats(splits: int, windows: int) -> list[Row]:
    """Return how often 95% intervals cover the truth where images are asked about many times."""
    covered: dict[tuple[str, bool], list[bool]] = {}
    refused = dict.fromkeys(REPEATS, 0)
    for seed in range(splits):
        draw, model, (x, y), held, rest = _split(seed)
        holdout = _answers(model.predict_proba, x[held])
        for name, often in REPEATS.items():
            for _ in range(windows):
                times = often(draw)
                asked = np.repeat(draw.choice(rest, len(times), replace=False), times)
                images = np.repeat(np.arange(len(times)), times)
                window = _answers(model.predict_proba, x[asked])
                right = float((window.probabilities.argmax(axis=1) == y[asked]).mean())
                for known in (True, False):
                    told = replace(window, images=images if known else None)
                    said = _estimated(holdout, y[held], told)
                    if said.state == "answered":
                        inside = said.low <= right <= said.high
                        covered.setdefault((name, known), []).append(inside)
                    elif known:
                        refused[name] += 1
    rows = []
    for name in REPEATS:
        ours, blind = (float(np.mean(covered[name, known])) for known in (True, False))
        case = f"{name}, {refused[name] / splits / windows:.0%} refused: 95% interval covers"
        rows.append(Row(case, ours, "needed", 0.93, "share", 1.0, False))
        rows.append(Row(case, ours, "each inference as an image", blind, "share", None, False))
    return rows


def production(runs: int) -> list[Row]:
    """Return how often 95% intervals cover the accuracy of production, beside all labels' mean."""
    rows = []
    for n, accuracy, rounds, drawn, chosen in [
        (2000, 0.93, 8, 5, 45),
        (2000, 0.98, 8, 5, 45),
        (1000, 0.7, 5, 10, 40),
        (3000, 0.95, 20, 10, 90),
    ]:
        pairs = [_picked(seed, n, accuracy, rounds, drawn, chosen) for seed in range(runs)]
        ours, naive = (float(np.mean([pair[i] for pair in pairs])) for i in range(2))
        case = f"{rounds} rounds of {drawn} drawn, {chosen} chosen, accuracy {accuracy}: covered"
        rows.append(Row(case, ours, "needed", 0.93, "share", 1.0, False))
        rows.append(Row(case, ours, "mean of all labels, Wilson", naive, "share", None, False))
    return rows


def _picked(
    seed: int, n: int, accuracy: float, rounds: int, drawn: int, chosen: int
) -> tuple[bool, bool]:
    said, truth, right, n_labels = picked(seed, n, accuracy, rounds, drawn, chosen)
    naive = wilson(right, n_labels)
    return said.low <= truth <= said.high, naive.low <= truth <= naive.high


def picked(
    seed: int, n: int, accuracy: float, rounds: int, drawn: int, chosen: int
) -> tuple[Estimate, float, int, int]:
    """Run rounds that draw a share of n samples, then choose the least sure of the others.

    Returns:
        The estimate, the accuracy of all inferences, and of the labelled samples the number that
        was answered rightly and the number.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    sure = draw.beta(8 * accuracy, 8 * (1 - accuracy), n)
    right, asked = draw.random(n) < sure, 1 + draw.poisson(0.7, n)
    traffic = [
        Traffic(str(i), "0000", int(asked[i]), {"y" if right[i] else "n": int(asked[i])})
        for i in range(n)
    ]
    left, labels, picks = np.arange(n), {}, []
    for number in range(1, rounds + 1):
        round_id = f"{number:04d}"
        some = draw.choice(left, drawn, replace=False)
        picks += [Drawn(round_id, str(i), drawn / len(left)) for i in some]
        left = np.setdiff1d(left, some)
        doubtful = left[np.argsort(sure[left])[:chosen]]
        picks += [Drawn(round_id, str(i), None) for i in doubtful]
        left = np.setdiff1d(left, doubtful)
        labels |= {str(i): Known("y", round_id) for i in [*some, *doubtful]}
    truth = float((right * asked).sum() / asked.sum())
    said = production_accuracy(traffic, int(asked.sum()), labels, picks, THRESHOLDS)
    return said, truth, sum(bool(right[int(i)]) for i in labels), len(labels)


def false_alarms(runs: int) -> list[Row]:
    """Return how often windows that are alike are called drifted, the three tests together."""
    nothing = {f"{name}_drift_above": 1e-9 for name in ("confidence", "class_mix", "embedding")}
    # The second window of a model is its second look, which has this share of the level.
    second, rows = level_of_look(2, 1.0), []
    for size, times in ((100, 1), (500, 1), (100, 10)):
        # A third of .15 is .05 for each test by itself.
        strict, each = (
            THRESHOLDS.model_copy(update={**nothing, "drift_significance": level / second})
            for level in (0.05, 0.15)
        )
        case = f"windows of {size} images alike, each asked {times} times"
        level, together = (_alarms(size, times, lax, runs) for lax in (strict, each))
        rows.append(
            Row(f"{case}, level .05: false alarms", level, "three tests at .05", together, "share")
        )
        if times > 1:
            known, blind = (
                _alarms(size, times, THRESHOLDS, runs, known=told) for told in (True, False)
            )
            case = f"{case}, defaults: false alarms"
            rows.append(Row(case, known, "each inference as an image", blind, "share"))
    return rows


def _alarms(
    size: int, times: int, thresholds: MonitoringConfig, runs: int, *, known: bool = True
) -> float:
    """Return the share of pairs of windows alike that any of three tests calls drifted."""
    found = 0
    for seed in range(runs):
        draw = np.random.default_rng(seed)
        x, y = (draw.normal(size=(size, 8)).astype(np.float32) for _ in range(2))
        windows = [_window(f"{i:04d}", z, times, known=known) for i, z in enumerate((x, y))]
        drifts = [one.drift for one in compare_window(windows[1], windows, {}, thresholds)]
        vectors = [z if known else np.repeat(z, times, axis=0) for z in (x, y)]
        drifts.append(embedding_drift(vectors[0], vectors[1], thresholds, look=2))
        found += any(drift.state == "drift" for drift in drifts)
    return found / runs


def _window(round_id: str, x: Floats, times: int, *, known: bool) -> Deployed:
    """Return what a model says of images, each asked about so often."""
    asked = np.repeat(np.arange(len(x)), times)
    sure = 1 / (1 + np.exp(-np.abs(x).max(axis=1).astype(np.float64)))
    said = [str(i) for i in x.argmax(axis=1)]
    images = asked if known else np.arange(len(asked))
    return Deployed(round_id, "e", "m", sure[asked], [said[i] for i in asked], images)


def main() -> None:
    """Measure and print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--nannyml", default="", help="a Python that has NannyML")

    options = arguments(__doc__, more)
    seeds, runs, alarms = (3, 100, 60) if options.quick else (20, 2000, 300)
    splits, windows = (10, 2) if options.quick else (200, 1)
    found, version = digits(seeds, options.nannyml)
    rows: Sequence[Row] = [
        *estimates(found, version),
        *repeats(splits, windows),
        *production(runs),
        *false_alarms(alarms),
        *calibration_rows(10 if options.quick else 300),
    ]
    report("estimation", rows, as_json=options.json)


if __name__ == "__main__":
    main()
