"""Streams that are looked at again and again, with drift and without: who raises an alarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from benchmarks._monitoring_peers_run import Peers
from benchmarks._rows import Row
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import DRIFT, class_mix_drift, confidence_drift, embedding_drift

Values = NDArray[np.float64]
REFERENCE, WINDOW = 500, 300
LOOKS, BEGINS = 20, 10
CLASSES, DIMENSIONS = 10, 16
# Of the peers' tests, as both of them are set where nobody says otherwise.
LEVEL = 0.05
SHUFFLES = 100
THRESHOLDS = MonitoringConfig()


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
Alarms = Callable[[Stream], list[bool]]


@dataclass(frozen=True)
class Case:
    """One kind of stream.

    Attributes:
        name: What drifts.
        draw: Returns rows, given a generator, their number and the strength of the drift.
        strengths: Of the drift, in words, each.
        ours: Alarms of our test at each look.
        plain: The same of a test without memory, by its name.
        classes: Whether rows are class numbers.
        streams: How many are drawn of each strength, and how many in short.
    """

    name: str
    draw: Draw
    strengths: Mapping[str, float]
    ours: Alarms
    plain: tuple[str, Alarms]
    classes: bool
    streams: tuple[int, int]


def drift_rows(peers: Peers, quick: bool) -> list[Row]:
    """Return the share of streams with a false alarm, and of those whose drift is found."""
    rows: list[Row] = []
    for case in CASES:
        number = case.streams[1] if quick else case.streams[0]
        for told, strength in {"no drift": 0.0, **case.strengths}.items():
            streams = [stream_of(case, strength, seed) for seed in range(number)]
            alarms = {"ours": [case.ours(stream) for stream in streams]}
            alarms[case.plain[0]] = [case.plain[1](stream) for stream in streams]
            alarms |= _evidently(peers, case, streams)
            rows += _rows(case, told, strength, alarms)
    return rows


def _rows(
    case: Case, told: str, strength: float, alarms: Mapping[str, Sequence[Sequence[bool]]]
) -> list[Row]:
    """Return a row for each peer: streams with an alarm that is false, or that is right."""
    shares = {}
    for who, each in alarms.items():
        seen = [any(row[BEGINS:]) if strength else any(row) for row in each]
        shares[who] = float(np.mean(seen))
    n = len(alarms["ours"])
    what = (
        f"{case.name}: {told}, found within {LOOKS - BEGINS} looks, of {n} streams"
        if strength
        else f"{case.name}: false alarm in {LOOKS} looks, of {n} streams"
    )
    return [
        Row(what, shares["ours"], who, share, "", None, smaller_is_better=not strength)
        for who, share in shares.items()
        if who != "ours"
    ]


def stream_of(case: Case, strength: float, seed: int) -> Stream:
    """Draw a stream that drifts from look `BEGINS` on; strength 0: it does not."""
    rng = np.random.Generator(np.random.PCG64([seed, len(case.name)]))
    reference = case.draw(rng, REFERENCE, 0.0)
    looks = [case.draw(rng, WINDOW, strength if k >= BEGINS else 0.0) for k in range(LOOKS)]
    return Stream(reference, np.stack(looks))


def _evidently(peers: Peers, case: Case, streams: Sequence[Stream]) -> dict[str, list[list[bool]]]:
    """Return Evidently's alarms: a set drifts where half of its columns do, as by its preset."""
    what = "classes" if case.classes else "numbers"
    arrays = {}
    for number, stream in enumerate(streams):
        arrays[f"{what}:{number}:reference"] = stream.reference
        arrays[f"{what}:{number}:looks"] = stream.looks
    found = peers.found(arrays)
    if not found:
        return {}
    half = streams[0].reference.shape[1] / 2
    alarms = [[n >= half for n in found[f"{what}:{number}"]] for number in range(len(streams))]
    return {f"Evidently {peers.versions['evidently']}": alarms}


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


def _our_confidences(stream: Stream) -> list[bool]:
    reference = stream.reference[:, 0]
    return [
        confidence_drift(reference, look[:, 0], THRESHOLDS, look=k).state == DRIFT
        for k, look in enumerate(stream.looks, 1)
    ]


def _our_classes(stream: Stream) -> list[bool]:
    def named(column: Values) -> list[str]:
        return [f"{int(value)}" for value in column]

    reference = named(stream.reference[:, 0])
    return [
        class_mix_drift(reference, named(look[:, 0]), THRESHOLDS, look=k).state == DRIFT
        for k, look in enumerate(stream.looks, 1)
    ]


def _our_embeddings(stream: Stream) -> list[bool]:
    reference = np.float32(stream.reference)
    return [
        embedding_drift(reference, np.float32(look), THRESHOLDS, look=k).state == DRIFT
        for k, look in enumerate(stream.looks, 1)
    ]


def _kolmogorov(stream: Stream) -> list[bool]:
    from scipy.stats import ks_2samp

    columns = stream.reference.shape[1]
    return [
        any(
            ks_2samp(stream.reference[:, j], look[:, j]).pvalue < LEVEL / columns
            for j in range(columns)
        )
        for look in stream.looks
    ]


def _chi_square(stream: Stream) -> list[bool]:
    from scipy.stats import chi2_contingency

    def counts(column: Values) -> NDArray[np.int64]:
        return np.bincount(column.astype(int), minlength=CLASSES)

    before = counts(stream.reference[:, 0])
    alarms = []
    for look in stream.looks:
        table = np.stack([before, counts(look[:, 0])])
        alarms.append(bool(chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue < LEVEL))
    return alarms


def _kernel(stream: Stream) -> list[bool]:
    """Test by the maximum mean discrepancy (Gretton et al., JMLR 2012), as alibi-detect does.

    A Gaussian kernel of the median distance, and 100 permutations.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    alarms = []
    for look in stream.looks:
        rows = np.concatenate([stream.reference, look])
        n = len(stream.reference)
        squares = (rows**2).sum(axis=1)
        apart = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0)
        kernel = np.exp(-apart / (2 * np.median(apart[apart > 0])))
        np.fill_diagonal(kernel, 0)

        # A column a split: the first as it came, the others dealt anew.
        inside = np.zeros((len(rows), SHUFFLES + 1))
        inside[:n, 0] = 1
        for column in range(1, SHUFFLES + 1):
            inside[rng.permutation(len(rows))[:n], column] = 1
        m, reach = len(look), kernel @ inside
        within, between = (inside * reach).sum(axis=0), ((1 - inside) * reach).sum(axis=0)
        others = kernel.sum() - within - 2 * between
        distances = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * between / (n * m)
        reached = int((distances[1:] >= distances[0]).sum())
        alarms.append(reached / SHUFFLES < LEVEL)
    return alarms


_SCIPY = version("scipy")
CASES = (
    Case(
        "confidence_drift",
        _confidences,
        {"mean .80 to .77": 0.4, "to .75": 0.67, "to .70": 1.4},
        _our_confidences,
        (f"KS a look, as alibi-detect, SciPy {_SCIPY}", _kolmogorov),
        False,
        (200, 30),
    ),
    Case(
        "class_mix_drift",
        _classes,
        {"one class of ten 10% to 18%": 0.1, "to 26%": 0.22, "to 40%": 0.5},
        _our_classes,
        (f"chi-square a look, as alibi-detect, SciPy {_SCIPY}", _chi_square),
        True,
        (200, 30),
    ),
    Case(
        "embedding_drift",
        _embeddings,
        {"one of 16 axes by .5 deviations": 0.25, "by 1 deviation": 0.5, "by 2": 1.0},
        _our_embeddings,
        ("kernel test a look, as alibi-detect, NumPy", _kernel),
        False,
        (24, 4),
    ),
)
