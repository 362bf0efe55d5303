"""What a detector found in each image, and one number an image of it.

An image in which it found nothing is *unknown*: a detector that missed every object looks exactly
like this, so neither 0 nor any other uncertainty would be true. A selection reserves a share of its
batch for such images, see `visionloop.selection.quota`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection import scores

Reducer = Literal["max", "mean", "sum"]
Rows = NDArray[np.intp]

FORMULAS = {
    "margin": scores.margin,
    "least_confidence": scores.least_confidence,
    "entropy": scores.entropy,
}


@dataclass(frozen=True)
class Detections:
    """The boxes of n images, one image after the other.

    Args:
        starts: intp [n + 1], where each image's boxes begin.
        scores: float32 [B, C], each box's score of each class, before any threshold.
        category: intp [B], each box's class.
        predicted: bool [n], whether the detector saw the image at all.
    """

    starts: Rows
    scores: NDArray[np.float32]
    category: Rows
    predicted: NDArray[np.bool_]

    @staticmethod
    def build(
        images: Sequence[Sequence[Mapping[str, Any]] | None], classes: Sequence[str]
    ) -> Detections:
        """Return the detections of boxes as the table `predictions` holds them.

        Args:
            images: For each image its boxes, each with `scores` and perhaps `label`; None for an
                image that was not predicted.
            classes: Names of the C classes. A box with one score and a label is one of that class.

        Raises:
            InputError: A box has neither a score of each class nor one score and a known label.
        """
        place = {name: i for i, name in enumerate(classes)}
        rows: list[NDArray[np.float32]] = []
        category: list[int] = []
        for boxes in images:
            for box in boxes or ():
                given = np.asarray(box["scores"], dtype=np.float32)
                label = place.get(str(box.get("label")), -1)
                if len(given) == 1 != len(classes) and label >= 0:
                    full = np.zeros(len(classes), dtype=np.float32)
                    full[label] = given[0]
                elif len(given) == len(classes):
                    full = given
                else:
                    raise InputError(
                        f"a box has {len(given)} scores for {len(classes)} classes, and its label "
                        f"is {box.get('label')!r}",
                        where="predictions",
                        remedy="Store a score of each class, or one score and the name of a class",
                    )
                if not np.isfinite(full).all() or (full < 0).any() or (full > 1).any():
                    raise InputError("a score of a box is not in [0, 1]", where="predictions")
                rows.append(full)
                category.append(label if label >= 0 else int(full.argmax()))
        counts = [len(boxes or ()) for boxes in images]
        return Detections(
            np.concatenate([[0], np.cumsum(counts, dtype=np.intp)]).astype(np.intp),
            np.stack(rows) if rows else np.zeros((0, len(classes)), dtype=np.float32),
            np.array(category, dtype=np.intp),
            np.array([boxes is not None for boxes in images], dtype=np.bool_),
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.predicted)

    def taken(self, order: Rows) -> Detections:
        """Return the detections of the images in another order."""
        counts = np.diff(self.starts)[order]
        boxes = [np.arange(self.starts[i], self.starts[i + 1]) for i in order]
        rows = np.concatenate([np.zeros(0, dtype=np.intp), *boxes]).astype(np.intp)
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.intp)]).astype(np.intp)
        return Detections(starts, self.scores[rows], self.category[rows], self.predicted[order])

    @property
    def image(self) -> Rows:
        """The image of each box, intp [B]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def without_boxes(self) -> NDArray[np.bool_]:
        """Images that were predicted and in which nothing was found, bool [n]."""
        empty: NDArray[np.bool_] = np.diff(self.starts) == 0
        return self.predicted & empty

    def uncertainty(self, score: str, reducer: Reducer) -> NDArray[np.float64]:
        """Return one uncertainty an image, float64 [n]; NaN where nothing was found.

        A box's uncertainty is that of its class scores (`visionloop.selection.scores`). Scores that
        do not sum to 1 (a sigmoid for each class) leave the rest b to the background, a class of
        its own; those that sum to more are divided by their sum. The formula is divided by the
        largest value that probabilities with a background of at most b can have: without any this
        is the formula of C classes, from 1/(C + 1) on that of C + 1, and what lies between is
        continuous. So a box's value depends on nothing but its own scores.

        Args:
            score: margin, least_confidence or entropy.
            reducer: What becomes of several boxes. `max` and `mean` stay in [0, 1]; `sum` prefers
                images of many uncertain objects.
        """
        p = _probabilities(self.scores)
        values = FORMULAS[score](p)
        if score != "margin":  # two classes alike have the largest with any background
            values = np.clip(values / _largest(score, p), 0.0, 1.0)
        return self.reduced(values, reducer)

    def objectness_least_confidence(self) -> NDArray[np.float64]:
        """Return 1 minus the image's highest score, float64 [n]; NaN where nothing was found."""
        return 1.0 - self.reduced(self.scores.max(axis=1, initial=0.0).astype(np.float64), "max")

    def reduced(self, values: NDArray[np.float64], reducer: Reducer) -> NDArray[np.float64]:
        """Return one number an image of one number a box; NaN where nothing was found."""
        result = np.full(len(self), np.nan)
        some = np.flatnonzero(np.diff(self.starts))
        if len(some):
            first = self.starts[some]
            if reducer == "max":
                result[some] = np.maximum.reduceat(values, first)
            else:
                result[some] = np.add.reduceat(values, first)
                if reducer == "mean":
                    result[some] /= np.diff(self.starts)[some]
        return result

    def category_counts(self) -> NDArray[np.float64]:
        """Return the number of boxes of each class, float64 [n, C]; NaN when unpredicted."""
        counts = np.zeros((len(self), self.scores.shape[1]))
        np.add.at(counts, (self.image, self.category), 1.0)
        counts[~self.predicted] = np.nan
        return counts

    def class_distribution(self) -> NDArray[np.float64]:
        """Return the sum of the boxes' class scores, float64 [n, C]; NaN rows when unpredicted."""
        total = np.zeros((len(self), self.scores.shape[1]))
        np.add.at(total, self.image, self.scores.astype(np.float64))
        total[~self.predicted] = np.nan
        return total


def _probabilities(scores_: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return float64 [B, C + 1], the background last."""
    values = scores_.astype(np.float64)
    sums = values.sum(axis=1)
    values = values / np.maximum(sums, 1.0)[:, None]
    return np.column_stack([values, np.maximum(0.0, 1.0 - sums)])


def _largest(score: str, p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the formula's largest value where the background is at most the box's, float64 [B]."""
    c = p.shape[1] - 1
    if c == 1:  # an object or none: the background is all that can be doubted
        return np.ones(len(p))
    background = np.minimum(p[:, -1], 1.0 / (c + 1))
    evenly = np.column_stack([np.repeat((1.0 - background)[:, None] / c, c, axis=1), background])
    return FORMULAS[score](evenly)
