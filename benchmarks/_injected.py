"""Pools with anomalies put in on purpose, and which they are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._photographs import photographs

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
KNOWN_CLASSES = 8
LEARNED, BEFORE, BATCH, ODD = 400, 500, 150, 14
START = datetime(2026, 3, 1, tzinfo=UTC)
FUTURE, PLACELESS, JUMP = "a clock in the future", "no place on earth", "a place out of reach"
NOWHERE, OUTSIDE = "at 0, 0", "beyond the pole"


@dataclass(frozen=True)
class Pool:
    """Embeddings of samples known before and of a batch of new ones, a few of them odd.

    Attributes:
        vectors: float32 [n, d], each of length 1.
        new: Which are of the batch, bool [n].
        odd: Which of the batch were put in, bool [n].
    """

    vectors: Floats
    new: Mask
    odd: Mask


def new_digits(seed: int) -> Pool:
    """Embed digits by a network that learned eight of the ten classes; put the others in."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    rng = np.random.Generator(np.random.PCG64(seed))
    pixels, labels = load_digits(return_X_y=True)
    known = rng.permutation(10)[:KNOWN_CLASSES]
    mine = rng.permutation(np.flatnonzero(np.isin(labels, known)))
    others = rng.permutation(np.flatnonzero(~np.isin(labels, known)))[:ODD]
    learned, pool = mine[:LEARNED], mine[LEARNED : LEARNED + BEFORE + BATCH]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that were not enough
        network = MLPClassifier((64,), max_iter=60, random_state=seed)
        network.fit(pixels[learned] / 16, labels[learned])
    inputs = pixels[np.concatenate([pool, others])] / 16
    return _pool(np.maximum(inputs @ network.coefs_[0] + network.intercepts_[0], 0), BEFORE)


def among_digits(kind: str, seed: int) -> Pool:
    """Describe digits by their pixels alone, and photographs of a kind among them."""
    return _described(_digits(), _photographs(kind), BEFORE, BATCH, seed)


def among_clothes(kind: str, seed: int) -> Pool:
    """Describe photographs of clothes by their pixels alone, and those of a kind among them."""
    return _described(_photographs("clothing"), _photographs(kind), 240, 60, seed)


def _described(sound: Floats, strange: Floats, before: int, batch: int, seed: int) -> Pool:
    from visionloop.inference.descriptor import fit_descriptor

    rng = np.random.Generator(np.random.PCG64(seed))
    mine = sound[rng.permutation(len(sound))[: before + batch]]
    others = strange[rng.permutation(len(strange))[:ODD]]
    descriptor = fit_descriptor(mine[:before], dimensions=64)
    return _pool(descriptor.embed(np.concatenate([mine, others])), before)


def _pool(vectors: NDArray[np.floating], before: int) -> Pool:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(len(vectors))
    unit = np.float32(vectors / np.maximum(length, 1e-9))
    return Pool(unit, rows >= before, rows >= len(rows) - ODD)


@cache
def _digits() -> Floats:
    """Return the features of the demo's digits, as its cameras would have taken them."""
    from benchmarks._label_noise import digit_features

    return np.stack(digit_features()[0])


@cache
def _photographs(kind: str) -> Floats:
    from visionloop.inference.descriptor import pixel_features

    size = (64, 64)
    return np.stack([pixel_features(one.resize(size)) for one in photographs(kind, 341)])


@dataclass(frozen=True)
class Journeys:
    """What cameras on vehicles wrote beside their pictures.

    Attributes:
        samples: ``sample_id``, ``source``, ``captured_at``, ``ingested_at``, ``width``, ``height``.
        metadata: ``sample_id``, ``camera``, ``latitude``, ``longitude``.
        wrong: What was put in, by sample.
    """

    samples: pa.Table
    metadata: pa.Table
    wrong: dict[str, str]


def journeys(seed: int, *, cameras: int = 4, each: int = 150, wrong: int = 5) -> Journeys:
    """Let cameras drive at up to 100 km/h and take a picture every few minutes; spoil some rows."""
    rng = np.random.Generator(np.random.PCG64(seed))
    samples, metadata, spoilt = [], [], {}
    for camera in range(cameras):
        time = START + timedelta(hours=float(rng.uniform(0, 12)))
        latitude, longitude = rng.uniform(-50, 55), rng.uniform(-170, 170)
        places = iter(rng.permutation(np.arange(5, each - 5))[: 4 * wrong].tolist())
        put = {
            next(places): what for what in (FUTURE, NOWHERE, OUTSIDE, JUMP) for _ in range(wrong)
        }
        for row in range(each):
            minutes = float(rng.uniform(1, 15))
            time += timedelta(minutes=minutes)
            reach = rng.uniform(0, 100) * minutes / 60 / 111
            angle = rng.uniform(0, 2 * np.pi)
            latitude = float(np.clip(latitude + reach * np.cos(angle), -60, 60))
            longitude += reach * np.sin(angle) / np.cos(np.radians(latitude))
            name = f"{camera:02d}{row:062d}"
            at, where = time, (latitude, (longitude + 180) % 360 - 180)
            match put.get(row):
                case "a clock in the future":
                    at = START + timedelta(days=float(rng.uniform(400, 4000)))
                case "at 0, 0":
                    where = (0.0, 0.0)
                case "beyond the pole":
                    where = (float(rng.uniform(91, 180)), where[1])
                case "a place out of reach":
                    where = (float(np.clip(where[0] + rng.choice([-20, 20]), -80, 80)), where[1])
            if row in put:
                spoilt[name] = PLACELESS if put[row] in (NOWHERE, OUTSIDE) else put[row]
            samples.append(
                {
                    "sample_id": name,
                    "source": "vehicles",
                    "captured_at": at,
                    "ingested_at": START + timedelta(days=30),
                    "width": 1920,
                    "height": 1080,
                }
            )
            metadata.append(
                {
                    "sample_id": name,
                    "camera": f"vehicle {camera}",
                    "latitude": where[0],
                    "longitude": where[1],
                }
            )
    return Journeys(pa.Table.from_pylist(samples), pa.Table.from_pylist(metadata), spoilt)


def arrivals(seed: int, days: int) -> tuple[dict[str, NDArray[np.datetime64]], str]:
    """Return when each of five cameras was heard, and the one that is to stop.

    One takes a picture every few minutes by day, one about every hour, one sends all of a day in
    the night, one works from Monday to Friday, and one is triggered by what passes, with no rhythm.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    hours: dict[str, list[float]] = {name: [] for name in ("day", "hourly", "nightly", "working")}
    for day in range(days):
        begins = 24 * day
        hours["day"] += list(begins + np.arange(6, 20, 0.05) + rng.uniform(0, 0.02))
        hours["hourly"] += list(begins + np.arange(24) + rng.uniform(0, 0.5, 24))
        hours["nightly"].append(begins + 2 + rng.uniform(0, 0.7))
        if (START + timedelta(days=day)).weekday() < 5:
            hours["working"] += list(np.sort(begins + rng.uniform(7, 17, 12)))
    hours["triggered"] = list(np.cumsum(rng.exponential(4.0, 12 * days)))
    start = np.datetime64(START.replace(tzinfo=None), "us")
    heard = {
        name: start + (np.array(each) * 3.6e9).astype("timedelta64[us]")
        for name, each in hours.items()
    }
    return heard, sorted(heard)[int(rng.integers(len(heard)))]
