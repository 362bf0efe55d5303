"""Pools with anomalies put in on purpose, and which they are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from benchmarks._photographs import photographs

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
KNOWN_CLASSES = 8
START = datetime(2026, 3, 1, tzinfo=UTC)
FUTURE, NOWHERE, OUTSIDE, JUMP = "in the future", "at 0, 0", "beyond the pole", "far away"


@dataclass(frozen=True)
class Pool:
    """Embeddings, a few of them of what does not belong there.

    Attributes:
        vectors: float32 [n, d], each of length 1.
        odd: Which were put in, bool [n].
    """

    vectors: Floats
    odd: Mask


@cache
def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels / 16, labels


def embedded_digits(seed: int, odd: str, number: int = 14) -> Pool:
    """Embed digits by a network that learned eight of the ten classes.

    Args:
        seed: Of network and choice.
        odd: What is put in: ``classes`` (digits of the two others) or ``pictures`` (photographs, as
            small and grey as the digits).
        number: How many are put in, among 600.
    """
    from sklearn.neural_network import MLPClassifier

    rng = np.random.Generator(np.random.PCG64(seed))
    pixels, labels = _digits()
    known, strange = rng.permutation(10)[:KNOWN_CLASSES], []
    mine = rng.permutation(np.flatnonzero(np.isin(labels, known)))
    learned, pool = mine[:600], mine[600:1200]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = MLPClassifier((64,), max_iter=60, random_state=seed)
        network.fit(pixels[learned], labels[learned])
    if odd == "classes":
        others = rng.permutation(np.flatnonzero(~np.isin(labels, known)))[:number]
        strange = list(pixels[others])
    else:
        for picture in _some(photographs("clothing", 300), number, rng):
            small = np.asarray(picture.convert("L").resize((8, 8)), dtype=np.float64) / 255
            strange.append(small.ravel())
    inputs = np.concatenate([pixels[pool], np.array(strange)])
    hidden = np.maximum(inputs @ network.coefs_[0] + network.intercepts_[0], 0)
    return _pool(hidden, len(pool))


def described_photographs(seed: int, number: int = 14) -> Pool:
    """Describe photographs of clothes and, among them, of blood cells, by their pixels alone."""
    from visionloop.inference.descriptor import fit_descriptor, pixel_features

    rng = np.random.Generator(np.random.PCG64(seed))
    clothes = _some(photographs("clothing", 341), 300, rng)
    cells = _some(photographs("bccd", 200), number, rng)
    features = np.stack([pixel_features(_small(one)) for one in [*clothes, *cells]])
    return _pool(
        fit_descriptor(features[: len(clothes)], dimensions=64).embed(features), len(clothes)
    )


def _some(pictures: list[Image.Image], number: int, rng: np.random.Generator) -> list[Image.Image]:
    return [pictures[int(i)] for i in rng.permutation(len(pictures))[:number]]


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((64, 64), Image.Resampling.BILINEAR)


def _pool(vectors: NDArray[np.floating], sound: int) -> Pool:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    odd = np.arange(len(vectors)) >= sound
    return Pool(np.float32(vectors / np.maximum(length, 1e-9)), odd)


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
                case "in the future":
                    at = START + timedelta(days=float(rng.uniform(400, 4000)))
                case "at 0, 0":
                    where = (0.0, 0.0)
                case "beyond the pole":
                    where = (float(rng.uniform(91, 180)), where[1])
                case "far away":
                    where = (float(np.clip(where[0] + rng.choice([-20, 20]), -80, 80)), where[1])
            if row in put:
                spoilt[name] = put[row]
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
