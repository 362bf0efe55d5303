"""Labelled pictures to put errors into: digits, clothes, blood cells; and the errors.

Each picture is embedded by the pixel descriptor, which is what a loop sees by that names no
weights. The digits are rendered as the demo's cameras would have taken them; the blood cells are
cut out of the microscope's images by their boxes, and 1,500 of them are drawn for each seed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks._photographs import data_folder, paths
from visionloop.demo.pictures import load_digits, render
from visionloop.inference.descriptor import fit_descriptor, pixel_features

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SETS = ("digits", "clothing", "blood cells")
KINDS = ("uniform", "class-dependent")
_MOST = 1500
_LEAST_SIDE = 8
# Of class-dependent errors: the share that go to one class, which is often mistaken for it.
_TO_ONE = 0.8


def available() -> list[str]:
    """Return the sets that can be measured here."""
    return list(SETS) if data_folder() is not None else ["digits"]


@cache
def pictures(name: str) -> tuple[Floats, Ints]:
    """Return the embeddings of a set, float32 [n, 64], and its labels, int64 [n]."""
    made = {"digits": digit_features, "clothing": _clothing, "blood cells": _cells}[name]
    features, labels = made()
    stacked = np.stack(features)
    names = sorted(set(labels))
    y = np.array([names.index(label) for label in labels], dtype=np.int64)
    return fit_descriptor(stacked, dimensions=64).embed(stacked), y


def draw(name: str, seed: int) -> tuple[Floats, Ints]:
    """Return at most 1,500 pictures of a set in random order, and their labels."""
    x, y = pictures(name)
    rows = np.random.default_rng([seed, 1]).permutation(len(y))[:_MOST]
    return x[rows], y[rows]


def with_errors(y: Ints, rate: float, kind: str, seed: int) -> Ints:
    """Return labels of which a share is wrong.

    Args:
        y: int64 [n].
        rate: The share.
        kind: ``uniform``: any other class; ``class-dependent``: four of five errors take a class
            for one certain other.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng([seed, 2])
    rows = rng.choice(len(y), round(rate * len(y)), replace=False)
    result = y.copy()
    result[rows] = mistaken(y[rows], int(y.max()) + 1, kind, rng)
    return result


def mistaken(y: Ints, classes: int, kind: str, rng: np.random.Generator) -> Ints:
    """Return another class than the true one for each sample; see `with_errors`."""
    other = (y + rng.integers(1, classes, len(y))) % classes
    if kind == "uniform":
        return np.asarray(other)
    # The same for everybody, whatever is drawn: the next class but one of ten, the next of three.
    partner = (np.arange(classes) + max(1, classes // 4)) % classes
    return np.where(rng.random(len(y)) < _TO_ONE, partner[y], other)


def digit_features() -> tuple[list[Floats], list[str]]:
    pixels, targets = load_digits()
    rng = np.random.default_rng(0)
    features = []
    for digit in pixels:
        tint = tuple(float(v) for v in rng.uniform(0.9, 1.1, 3))
        gain = float(rng.uniform(0.85, 1.15))
        ink = (digit / 16).astype(np.float32)
        picture = render(ink, (tint[0], tint[1], tint[2]), gain, 0.03, 0.4, rng)
        features.append(pixel_features(Image.fromarray(picture)))
    return features, [str(target) for target in targets]


def _clothing() -> tuple[list[Floats], list[str]]:
    found = paths("clothing")
    features = [pixel_features(Image.open(path).convert("RGB")) for path in found]
    return features, [path.parent.name for path in found]


def _cells() -> tuple[list[Floats], list[str]]:
    features, labels = [], []
    for path in paths("bccd"):
        described = next(path.parents[1].rglob(f"{path.stem}.xml"), None)
        if described is None:
            continue
        picture = Image.open(path).convert("RGB")
        for item in ElementTree.parse(described).getroot().iter("object"):
            corners = item.find("bndbox")
            if corners is None:
                continue
            box = [float(corners.findtext(k) or 0) for k in ("xmin", "ymin", "xmax", "ymax")]
            left, top = max(box[0], 0), max(box[1], 0)
            right, bottom = min(box[2], picture.width), min(box[3], picture.height)
            if min(right - left, bottom - top) >= _LEAST_SIDE:
                features.append(pixel_features(picture.crop((left, top, right, bottom))))
                labels.append(str(item.findtext("name")))
    return features, labels
