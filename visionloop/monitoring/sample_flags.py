"""Flags of samples: quality among their source, and the same picture again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS, as_words
from visionloop.media.likeness import Floats, likeness
from visionloop.media.near_duplicates import nearest_earlier
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.quality import Limit, limits, net_sharpness, oddities, telling
from visionloop.words import counted

# Takes URIs by sample id; returns what `visionloop.media.likeness` compares, of those there are.
ReadGreys = Callable[[Mapping[str, str]], Mapping[str, Floats]]
# Flat pictures that differ by more than this, in brightness or saturation, are not the same one.
_FLAT_APART = 8 / 255
# So many candidates are compared at a time: each picture has 16 KiB.
_PAIRS = 2000
_UNITS = {
    "sharpness": "variance of the Laplacian over that of the grey values",
    "brightness": "mean grey value, 0 black to 1 white",
    "contrast": "standard deviation of the grey values, of full scale",
    "entropy": "bits",
    "aspect": "shorter over longer side",
    "saturation": "distance of strongest and weakest channel, 0 to 1",
    "side": "pixels",
}


@dataclass(frozen=True)
class Population:
    """All samples of the lake, those to be checked among them.

    Attributes:
        ids: Sample ids, length n.
        uris: Where their bytes lie, "" where that is not written.
        sources: Where they came from, "" where that is not written.
        prints: Fingerprints of 32 bytes, None where there is none.
        measures: Sharpness (without rounding noise), brightness and contrast, and ``entropy``,
            ``aspect``, ``saturation`` and ``side`` (see `visionloop.monitoring.quality.oddities`),
            float64 [n] each, NaN where one is not known.
        measured: Which samples have a fingerprint and the first three measures, bool [n].
        is_new: Which samples are to be checked, bool [n].
    """

    ids: list[str]
    uris: list[str]
    sources: list[str]
    prints: list[bytes | None]
    measures: Mapping[str, NDArray[np.float64]]
    measured: NDArray[np.bool_]
    is_new: NDArray[np.bool_]


def population_of(samples: pa.Table, new: set[str]) -> Population:
    """Return the samples of the table ``samples`` as a population.

    Args:
        samples: Table ``samples``.
        new: Samples to be checked.
    """
    names = ("sample_id", "uri", "source", "fingerprint")
    columns = {name: samples[name].to_pylist() for name in names}
    measures = {name: _numbers(samples, name) for name in ("sharpness", "brightness", "contrast")}
    measures["sharpness"] = net_sharpness(measures["sharpness"], measures["contrast"])
    prints = columns["fingerprint"]
    measured = np.array([p is not None for p in prints], dtype=bool)
    for values in measures.values():
        measured &= np.isfinite(values)
    width, height = _numbers(samples, "width"), _numbers(samples, "height")
    measures["side"] = np.minimum(width, height)
    measures["aspect"] = measures["side"] / np.maximum(width, height)
    measures |= {name: _numbers(samples, name) for name in ("entropy", "saturation")}
    return Population(
        columns["sample_id"],
        [uri or "" for uri in columns["uri"]],
        [source or "" for source in columns["source"]],
        prints,
        measures,
        measured,
        np.array([sample in new for sample in columns["sample_id"]], dtype=bool),
    )


def _numbers(samples: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where there is none: older lakes lack some."""
    if name not in samples.column_names:
        return np.full(samples.num_rows, np.nan)
    return np.asarray(samples[name].cast(pa.float64()).to_numpy(zero_copy_only=False))


def flag_quality(population: Population, thresholds: MonitoringConfig, findings: Findings) -> None:
    """Flag new samples of bad quality, and odd ones, among those of their source.

    Args:
        population: All samples.
        thresholds: Absolute limits, ``outlier_deviations`` and ``min_population``.
        findings: Receives the flags.
    """
    measures, ids = population.measures, population.ids
    names = np.array(population.sources, dtype=object)
    found: dict[int, list[tuple[Limit, float]]] = {}
    alone: dict[str, str] = {}
    for source in sorted(set(names)):
        own = names == source
        # A source too small to be a population of its own is judged among all samples.
        enough = own.sum() >= thresholds.min_population
        among = own if enough else np.ones_like(own)
        alone[source] = source if enough else ""
        theirs = {name: values[among] for name, values in measures.items()}
        of_quality = limits(
            theirs["sharpness"], theirs["brightness"], theirs["contrast"], thresholds
        )
        for limit in [*of_quality, *oddities(theirs, thresholds)]:
            values = measures[limit.measure]
            for row in np.flatnonzero(own & population.is_new & limit.flags(values)).tolist():
                found.setdefault(row, []).append((limit, float(values[row])))
    for row in sorted(found, key=lambda r: ids[r]):
        kept = telling({limit.kind for limit, _ in found[row]}, float(measures["contrast"][row]))
        for limit, value in found[row]:
            if limit.kind not in kept:
                continue
            findings.flag(
                ids[row],
                limit.kind,
                score=value,
                threshold=limit.value,
                unit=_UNITS[limit.measure],
                reference=_reference(limit, alone[population.sources[row]], thresholds),
                images=[ids[row]],
                measure=limit.measure,
                median=limit.median,
                population=limit.population,
                rule=limit.rule,
            )


def _reference(limit: Limit, source: str, thresholds: MonitoringConfig) -> str:
    """Return in words what set a limit."""
    if limit.rule == "absolute":
        return "a limit that holds for any picture, whatever the others look like"
    of = counted(limit.population, "sample")
    of += f" of the source {source}" if source else " of all sources"
    if limit.rule == "outlier":
        return f"{of}: {thresholds.outlier_deviations:g} robust deviations from their median"
    return f"{of}: half their median"


def flag_near_duplicates(
    population: Population,
    thresholds: MonitoringConfig,
    read_greys: ReadGreys,
    findings: Findings,
) -> None:
    """Flag new samples that show the same picture as an earlier one.

    Args:
        population: All samples.
        thresholds: ``near_duplicate_distance`` and ``near_duplicate_likeness``.
        read_greys: Reads the pixels that confirm a candidate.
        findings: Receives the flags.
    """
    ids, uris, prints = population.ids, population.uris, population.prints
    measured, is_new = population.measured, population.is_new
    # Arrival: known samples first, then the new ones by name. Clocks and thread timing have no say.
    known = [r for r in range(len(ids)) if measured[r] and not is_new[r]]
    fresh = [r for r in range(len(ids)) if measured[r] and is_new[r]]
    if not fresh:
        return
    order = [
        *sorted(known, key=lambda r: (uris[r], ids[r])),
        *sorted(fresh, key=lambda r: (uris[r], ids[r])),
    ]
    prints_in_order = as_words([prints[r] or b"" for r in order])
    nearest, distance = nearest_earlier(
        prints_in_order, len(known), thresholds.near_duplicate_distance
    )
    candidates = [
        (row, order[other], int(bits))
        for row, other, bits in zip(order[len(known) :], nearest, distance, strict=True)
        if other >= 0
    ]
    flat = _Flat(population, order)
    for start in range(0, len(candidates), _PAIRS):
        some = candidates[start : start + _PAIRS]
        greys = read_greys({ids[r]: uris[r] for row, other, _ in some for r in (row, other)})
        shown = [pair for pair in some if {ids[pair[0]], ids[pair[1]]} <= greys.keys()]
        likenesses = likeness(
            [greys[ids[row]] for row, _, _ in shown], [greys[ids[other]] for _, other, _ in shown]
        )
        scores = dict(zip(shown, likenesses.tolist(), strict=True))
        for row, other, bits in some:
            evidence = _of_pair(population, row, other, bits)
            score = scores.get((row, other, bits))
            if score is None:
                # Without the pixels only what the fingerprint alone is good for can be said.
                evidence |= _by_fingerprint("the pictures' bytes could not be read")
                score, threshold = float(bits), float(NEAR_DUPLICATE_BITS)
                same = bits <= NEAR_DUPLICATE_BITS
            elif min(float(greys[ids[r]].std()) for r in (row, other)) < 1:
                # Flat pictures share one fingerprint, whatever their tone: that alone is theirs.
                first = flat.earlier_alike(row) if bits == 0 else None
                same = first is not None
                if first is not None:
                    evidence = _of_pair(population, row, first, bits)
                evidence |= _by_fingerprint(
                    "the pictures are flat: beside the fingerprint only their brightness and "
                    "saturation can be compared"
                )
                score, threshold = float(bits), 0.0
            else:
                evidence["unit"] = "likeness of the pixels, 0 to 1"
                evidence["reference"] = "the earlier picture, laid over this one"
                threshold = thresholds.near_duplicate_likeness
                same = score >= threshold
            if same:
                findings.flag(
                    ids[row], "near_duplicate", score=score, threshold=threshold, **evidence
                )


def _of_pair(population: Population, row: int, other: int, bits: int) -> dict[str, Any]:
    ids = population.ids
    return {
        "original": ids[other],
        "original_uri": population.uris[other],
        "bits": bits,
        "images": [ids[row], ids[other]],
    }


class _Flat:
    """Finds the earlier pictures of a flat one's fingerprint that are of its tone, too.

    Args:
        population: All samples.
        order: Rows with measures, in the order of their arrival.
    """

    def __init__(self, population: Population, order: list[int]) -> None:
        self._population, self._order = population, order
        self._rows: dict[bytes | None, NDArray[np.intp]] = {}

    def earlier_alike(self, row: int) -> int | None:
        """Return the first earlier row whose brightness and saturation are alike, or None."""
        prints, measures = self._population.prints, self._population.measures
        print_ = prints[row]
        if print_ not in self._rows:
            found = [other for other in self._order if prints[other] == print_]
            self._rows[print_] = np.array(found, np.intp)
        rows = self._rows[print_]
        earlier = rows[: int(np.flatnonzero(rows == row)[0])]
        alike = np.ones(len(earlier), np.bool_)
        for name in ("brightness", "saturation"):
            apart = np.abs(measures[name][earlier] - measures[name][row])
            alike &= ~(apart > _FLAT_APART)  # what an older lake has not measured tells nothing
        first = np.flatnonzero(alike)
        return int(earlier[first[0]]) if len(first) else None


def _by_fingerprint(why: str) -> dict[str, str]:
    return {
        "unit": "bits of 256 in which the fingerprints differ",
        "reference": "the fingerprint of the earlier picture",
        "unconfirmed": why,
    }
