"""Streams that are looked at again and again, with drift and without: who raises an alarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks._drift_tests import Values, chi_square, kernel, kolmogorov
from benchmarks._monitoring_peers_run import AllPeers
from benchmarks._rows import Row
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import (
    DRIFT,
    TESTS,
    Drift,
    class_mix_drift,
    confidence_drift,
    embedding_drift,
)
from visionloop.monitoring.looks import level_of_look

OURS = "ours"
REFERENCE, WINDOW = 500, 300
LOOKS, BEGINS = 20, 10
CLASSES, DIMENSIONS = 10, 16
# Of the peers' tests, as all of them are set where nobody says otherwise.
LEVEL = 0.05
THRESHOLDS = MonitoringConfig()


@dataclass(frozen=True)
class Setting:
    """At which level each tests.

    Attributes:
        name: What is told.
        ours: Our thresholds.
        level: Of each look by a peer.
    """

    name: str
    ours: MonitoringConfig
    level: float


# Ours shares its level between the three tests of a look; here each is by itself, so that the level
# of one is a third. A difference of any size counts, as it does with the peers; they share the
# level between the looks, of which they have to know the number.
SETTINGS = (
    Setting("by default", THRESHOLDS, LEVEL),
    Setting(
        f"level {LEVEL} in all looks",
        MonitoringConfig(
            drift_significance=TESTS * LEVEL,
            confidence_drift_above=1e-9,
            class_mix_drift_above=1e-9,
            embedding_drift_above=1e-9,
        ),
        LEVEL / LOOKS,
    ),
)


@dataclass(frozen=True)
class Stream:
    """A reference and what comes look by look.

    Attributes:
        reference: [n, columns].
        looks: [looks, m, columns]; from look `BEGINS` on with drift, where there is any.
    """

    reference: Values
    looks: Values


Draw = Callable[[np.random.Generator, int, float], Values]
Ours = Callable[[Values, Values, MonitoringConfig, int], Drift]
Plain = Callable[[Values, Values, float], bool]


@dataclass(frozen=True)
class Case:
    """One kind of stream.

    Attributes:
        name: What drifts.
        draw: Returns rows, given a generator, their number and the strength of the drift.
        strengths: Of the drift, in words, each.
        ours: Our test of a reference and a look, by its thresholds and the look's number.
        plain: Tests without memory, by name.
        alibi: The test of alibi-detect.
        classes: Whether rows are class numbers.
        streams: How many are drawn of each strength, and how many in short.
    """

    name: str
    draw: Draw
    strengths: Mapping[str, float]
    ours: Ours
    plain: Mapping[str, Plain]
    alibi: str
    classes: bool
    streams: tuple[int, int]


def drift_rows(peers: AllPeers, quick: bool) -> list[Row]:
    """Return the share of streams with a false alarm, and how much of a drift is found and when."""
    rows = reach_rows()
    for case in CASES:
        number = case.streams[1] if quick else case.streams[0]
        for told, strength in {"no drift": 0.0, **case.strengths}.items():
            streams = [stream_of(case, strength, seed) for seed in range(number)]
            asked = _asked(peers, case, streams)
            for i, setting in enumerate(SETTINGS):
                alarms = {OURS: [alarms_of(case.ours, one, setting) for one in streams]}
                for who, plain in case.plain.items():
                    alarms[who] = [plain_alarms(plain, one, setting.level) for one in streams]
                for who, each in asked.items():
                    alarms[who] = [[look[i] for look in looks] for looks in each]
                rows += told_rows(f"{case.name}, {setting.name}", told, bool(strength), alarms)
    return rows


def reach_rows() -> list[Row]:
    """Return how far two windows have to be apart to be significant, as looks go on."""
    rows = []
    for look in (1, 10, 100, 800):
        ours = level_of_look(look, THRESHOLDS.drift_significance)
        usual = THRESHOLDS.drift_significance * 6 / (np.pi * look) ** 2
        reach = [_least_distance(level / TESTS) for level in (ours, usual)]
        case = f"look {look}: least KS distance that is significant, {REFERENCE} and {REFERENCE}"
        rows.append(Row(case, reach[0], "a level that falls as 6/(pi k)^2", reach[1], ""))
    return rows


def _least_distance(level: float) -> float:
    """Return the least Kolmogorov-Smirnov distance of two windows whose p value is below a level.

    By halving: the p value falls as the distance grows.
    """
    from scipy.stats import ks_2samp

    even = np.arange(REFERENCE, dtype=np.float64)
    low, high = 0, REFERENCE
    while high - low > 1:
        middle = (low + high) // 2
        found = ks_2samp(even, even + middle - 0.5, method="asymp")
        low, high = (low, middle) if found.pvalue < level else (middle, high)
    return high / REFERENCE


def alarms_of(ours: Ours, stream: Stream, setting: Setting) -> list[bool]:
    """Return whether our test tells of drift at each look."""
    return [
        ours(stream.reference, look, setting.ours, k).state == DRIFT
        for k, look in enumerate(stream.looks, 1)
    ]


def plain_alarms(plain: Plain, stream: Stream, level: float) -> list[bool]:
    """Return whether a test without memory tells of drift at each look."""
    return [plain(stream.reference, look, level) for look in stream.looks]


def told_rows(
    case: str, told: str, drifts: bool, alarms: Mapping[str, Sequence[Sequence[bool]]]
) -> list[Row]:
    """Return the rows of a case beside each peer.

    Args:
        case: What is told first.
        told: What drifts how far.
        drifts: Whether there is drift from look `BEGINS` on.
        alarms: Of each stream at each look, ours and those of each peer.
    """
    n = len(alarms[OURS])
    others = [who for who in alarms if who != OURS]
    if not drifts:
        shares = {who: float(np.mean([any(one) for one in each])) for who, each in alarms.items()}
        what = f"{case}: false alarm in {LOOKS} looks, of {n} streams"
        return [Row(what, shares[OURS], who, shares[who], "") for who in others]
    rows, rest = [], LOOKS - BEGINS
    found, delay = {}, {}
    for who, each in alarms.items():
        first = [next((k for k, alarm in enumerate(one[BEGINS:], 1) if alarm), 0) for one in each]
        found[who] = float(np.mean([k > 0 for k in first]))
        delay[who] = float(np.mean([k or rest for k in first]))
    for who in others:
        what = f"{case}: {told}, found within {rest} looks, of {n} streams"
        rows.append(Row(what, found[OURS], who, found[who], "", None, False))
        what = f"{case}: {told}, looks until then, {rest} where it is not found"
        rows.append(Row(what, delay[OURS], who, delay[who], "looks"))
    return rows


def stream_of(case: Case, strength: float, seed: int) -> Stream:
    """Draw a stream that drifts from look `BEGINS` on; strength 0: it does not."""
    rng = np.random.Generator(np.random.PCG64([seed, len(case.name)]))
    reference = case.draw(rng, REFERENCE, 0.0)
    looks = [case.draw(rng, WINDOW, strength if k >= BEGINS else 0.0) for k in range(LOOKS)]
    return Stream(reference, np.stack(looks))


def _asked(
    peers: AllPeers, case: Case, streams: Sequence[Stream]
) -> dict[str, list[list[list[bool]]]]:
    """Return the alarms of Evidently and alibi-detect: of each stream, look and setting."""
    what = "classes" if case.classes else "numbers"
    arrays: dict[str, Any] = {"levels": np.array([setting.level for setting in SETTINGS])}
    for number, stream in enumerate(streams):
        arrays[f"{what}:{number}:reference"] = stream.reference
        arrays[f"{what}:{number}:looks"] = stream.looks
    alarms = {}
    for name, one, more in (
        ("Evidently", peers.datalab, ""),
        ("alibi-detect", peers.alibi, f" {case.alibi}"),
    ):
        if found := one.found(arrays):
            told = f"{name} {one.versions[name.lower()]}{more}"
            alarms[told] = [found[f"{what}:{number}"] for number in range(len(streams))]
    return alarms


def _confidences(rng: np.random.Generator, n: int, strength: float) -> Values:
    return rng.beta(8, 2 + strength, (n, 1))


def _classes(rng: np.random.Generator, n: int, strength: float) -> Values:
    shares = np.ones(CLASSES)
    shares[0] += strength * CLASSES
    return rng.choice(CLASSES, (n, 1), p=shares / shares.sum()).astype(np.float64)


def _embeddings(rng: np.random.Generator, n: int, strength: float) -> Values:
    centres = np.random.Generator(np.random.PCG64(1)).normal(size=(5, DIMENSIONS))
    vectors = centres[rng.integers(0, 5, n)] + 0.5 * rng.normal(size=(n, DIMENSIONS))
    vectors[:, 0] += strength
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _our_confidences(
    reference: Values, look: Values, thresholds: MonitoringConfig, number: int
) -> Drift:
    return confidence_drift(reference[:, 0], look[:, 0], thresholds, look=number)


def _our_classes(
    reference: Values, look: Values, thresholds: MonitoringConfig, number: int
) -> Drift:
    before, now = ([f"{int(value)}" for value in rows[:, 0]] for rows in (reference, look))
    return class_mix_drift(before, now, thresholds, look=number)


def _our_embeddings(
    reference: Values, look: Values, thresholds: MonitoringConfig, number: int
) -> Drift:
    return embedding_drift(np.float32(reference), np.float32(look), thresholds, look=number)


_KS = f"KS a look, SciPy {version('scipy')}"
CASES = (
    Case(
        "confidence_drift",
        _confidences,
        {"mean .80 to .77": 0.4, "to .75": 0.67, "to .70": 1.4},
        _our_confidences,
        {_KS: kolmogorov},
        "KSDrift",
        False,
        (200, 30),
    ),
    Case(
        "class_mix_drift",
        _classes,
        {"one class of ten 10% to 18%": 0.1, "to 26%": 0.22, "to 40%": 0.5},
        _our_classes,
        {f"chi-square a look, SciPy {version('scipy')}": chi_square},
        "ChiSquareDrift",
        True,
        (200, 30),
    ),
    Case(
        "embedding_drift",
        _embeddings,
        {"one of 16 axes by .5 deviations": 0.25, "by 1 deviation": 0.5, "by 2": 1.0},
        _our_embeddings,
        {_KS: kolmogorov, f"kernel test a look, NumPy {version('numpy')}": kernel},
        "KSDrift",
        False,
        (24, 4),
    ),
)
