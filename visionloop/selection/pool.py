"""What selection chooses from, and what it must know besides: plain arrays, checked once.

Rows lie in the order of the sample ids, so that "the first of equals" is the smallest id whatever
order shards, threads or tables came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.detections import Detections
from visionloop.vectors.exact import squared_norms

FINGERPRINT_BYTES = 32
FINGERPRINT_WORDS = FINGERPRINT_BYTES // 8
NOT_OF_LENGTH_1 = 2e-5
NOT_A_SUM_OF_1 = 0.01


def named(sample_ids: Sequence[str], at_most: int = 5) -> str:
    """Return the first ids as text, and how many more there are."""
    shown = ", ".join(sample_ids[:at_most])
    more = len(sample_ids) - at_most
    return f"{shown} and {more} more" if more > 0 else shown


def stack_vectors(
    sample_ids: Sequence[str], vectors: Any, *, space: str, dimension: int | None = None
) -> NDArray[np.float32]:
    """Return vectors as a matrix with rows of length 1, after checking every one.

    Args:
        sample_ids: Whose vectors they are, for the error.
        vectors: Array [n, d], or n sequences of numbers.
        space: The embedding space, for the error.
        dimension: d, when it is known; else that of most vectors.

    Returns:
        float32 [n, d]. A vector of zeros has no direction and stays zero.

    Raises:
        InputError: A vector has another dimension, or holds NaN or infinity; all are named.
    """
    where = f"embeddings of the space {space!r}"
    if len(vectors) != len(sample_ids):
        raise InputError(
            f"{len(sample_ids)} samples came with {len(vectors)} embeddings", where=where
        )
    if len(vectors) == 0:
        return np.zeros((0, dimension or 0), dtype=np.float32)
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2:
        lengths = np.full(len(vectors), vectors.shape[1])
    else:
        lengths = np.array([np.size(v) for v in vectors])
    expected = dimension if dimension is not None else int(np.bincount(lengths).argmax())
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        raise InputError(
            f"{len(wrong)} embeddings do not have the {expected} dimensions of their space: "
            + named([f"{sample_ids[int(i)]} has {lengths[i]}" for i in wrong]),
            where=where,
            remedy="Two models' embeddings were mixed; embed these samples again",
        )
    matrix = np.ascontiguousarray(np.asarray(vectors, dtype=np.float32).reshape(-1, expected))
    norms = np.sqrt(squared_norms(matrix))
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise InputError(
            f"{len(bad)} embeddings hold NaN or infinity: " + named(_at(sample_ids, bad)),
            where=where,
            remedy="Run the stage infer again (`visionloop run intake`): it embeds them anew",
        )
    # Each row for itself: a vector must not depend on who else is in the pool.
    off = np.flatnonzero((np.abs(norms - 1.0) > NOT_OF_LENGTH_1) & (norms > 0))
    if len(off):
        matrix = matrix.copy()
        matrix[off] /= norms[off, None]
    return matrix


def fingerprint_words(fingerprints: Sequence[bytes | None]) -> NDArray[np.uint64]:
    """Return 256-bit fingerprints as uint64 [n, 4]; what is missing becomes unlike everything.

    Raises:
        InputError: A fingerprint does not have 32 bytes.
    """
    for value in fingerprints:
        if value is not None and len(value) != FINGERPRINT_BYTES:
            raise InputError(f"a fingerprint has {len(value)} bytes instead of {FINGERPRINT_BYTES}")
    blank = bytes(FINGERPRINT_BYTES)
    joined = b"".join(value if value is not None else blank for value in fingerprints)
    return np.frombuffer(joined, dtype=np.uint64).reshape(-1, FINGERPRINT_WORDS).copy()


@dataclass(frozen=True)
class Reference:
    """Samples that are never picked but matter: labelled ones, the holdout.

    Args:
        sample_ids: Whose they are.
        embeddings: float32 [n, d] by space, rows of length 1; a space may be missing.
        fingerprints: uint64 [n, 4]; None when there are none.
        metadata: As in `Pool`; used where a batch is balanced against what is labelled.
        labels: Their classes, for the same, each as often as it comes: a detector's samples have
            one for each object. Empty where they are not known.
    """

    sample_ids: tuple[str, ...] = ()
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    fingerprints: NDArray[np.uint64] | None = None
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_lengths(self.sample_ids, self.embeddings, self.fingerprints, self.metadata)

    @staticmethod
    def build(
        sample_ids: Sequence[str],
        *,
        embeddings: Mapping[str, Any] | None = None,
        fingerprints: Sequence[bytes | None] | None = None,
        metadata: Mapping[str, Sequence[Any]] | None = None,
        labels: Sequence[str] = (),
    ) -> Reference:
        """Return the reference of what tables gave, checked; see `Pool.build`."""
        ids = tuple(sample_ids)
        return Reference(
            ids,
            {s: stack_vectors(ids, v, space=s) for s, v in (embeddings or {}).items()},
            None if fingerprints is None else fingerprint_words(fingerprints),
            {name: column(values) for name, values in (metadata or {}).items()},
            tuple(labels),
        )


@dataclass(frozen=True)
class Harvested:
    """Harvested images, which tell how uncertain the deployed model is about similar ones.

    Args:
        sample_ids: In ascending order.
        x: float32 [t, d], rows of length 1.
        scores: float64 [t] in [0, 1] by name (margin, least_confidence, entropy), of at most as
            many images as are compared with; NaN for others.
    """

    sample_ids: tuple[str, ...]
    x: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Pool:
    """Samples to choose from.

    Args:
        sample_ids: Sorted, each once.
        embeddings: float32 [n, d] by space, rows of length 1.
        scores: float64 [n] in [0, 1] by name; NaN is unknown. `margin`, `entropy` and
            `least_confidence` are the current model's, `deployed_…` were harvested.
        metadata: By name, float64 [n] (NaN is unknown) or object [n] of text (None is unknown).
        probabilities: float32 [n, C] of the current model, NaN rows are unknown; None without one.
        classes: Names of the C classes; without a model the classes that are known of.
        fingerprints: uint64 [n, 4]; None when there are none.
        flags: bool [n] by kind.
        detections: Boxes of the current model; None where it is no detector.
        committee: float32 [M, n, C] of M models, the current one among them, NaN rows are unknown.
        passes: float32 [S, n, C] of S passes of the current model with dropout; None where it
            offers none.
        whole: Where the pool is part of a larger one: what `Fixed.measure` returns over all of it,
            by the objective's name.
        harvested: Likewise: the harvested images of all of it; None where they are in the pool.
        partial: Whether there may be samples that are no part of this pool, with other values.
        model: Id of the model in service, whose predictions these are; empty where there is none.

    Raises:
        InputError: Ids are not sorted or not unique, or an array does not fit them.
    """

    sample_ids: tuple[str, ...]
    embeddings: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    probabilities: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = ()
    fingerprints: NDArray[np.uint64] | None = None
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    detections: Detections | None = None
    committee: NDArray[np.float32] | None = None
    passes: NDArray[np.float32] | None = None
    whole: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    harvested: Harvested | None = None
    partial: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if any(a >= b for a, b in pairwise(self.sample_ids)):
            raise InputError(
                "the sample ids of a pool must be sorted, each once",
                remedy="Make the pool with Pool.build",
            )
        _check_lengths(self.sample_ids, self.embeddings, self.fingerprints, self.metadata)
        for name, values in {**self.scores, **self.flags}.items():
            _check_rows(len(values), len(self.sample_ids), name)
        for name, values in self.scores.items():
            outside = np.flatnonzero((values < 0) | (values > 1))
            if len(outside):
                raise InputError(
                    f"{len(outside)} values of the score {name!r} lie outside [0, 1]: "
                    + named(_at(self.sample_ids, outside))
                )
        self._check_predictions()

    def _check_predictions(self) -> None:
        n, given = len(self.sample_ids), self.probabilities
        if self.detections is not None:
            _check_rows(len(self.detections), n, "detections")
        stacks = {"committee": self.committee, "passes": self.passes}
        if given is not None:
            stacks["probabilities"] = given[None]
        for name, stack in stacks.items():
            if stack is None:
                continue
            _check_rows(stack.shape[1], n, name)
            if stack.shape[2] != len(self.classes):
                raise InputError(
                    f"{name} of {stack.shape[2]} classes came with {len(self.classes)} class names"
                )
            for member in stack:
                self._check_probabilities(name, member)

    def _check_probabilities(self, name: str, given: NDArray[np.float32]) -> None:
        total, low = given.sum(axis=1), given.min(axis=1, initial=0.0)
        # NaN rows are unknown; models in float16 are off by a thousandth.
        wrong = np.flatnonzero((np.abs(total - 1.0) > NOT_A_SUM_OF_1) | (low < -NOT_A_SUM_OF_1))
        if len(wrong) and len(self.classes):
            raise InputError(
                f"{name} of {len(wrong)} samples are negative or do not sum to 1: "
                + named(_at(self.sample_ids, wrong)),
                remedy="Give probabilities; of logits they are the softmax",
            )

    @staticmethod
    def build(
        sample_ids: Sequence[str],
        *,
        embeddings: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Sequence[Any]] | None = None,
        probabilities: Any = None,
        classes: Sequence[str] = (),
        fingerprints: Sequence[bytes | None] | None = None,
        flags: Mapping[str, Any] | None = None,
        boxes: Sequence[Sequence[Mapping[str, Any]] | None] | None = None,
        committee: Any = None,
        passes: Any = None,
    ) -> Pool:
        """Return the pool of rows in any order, sorted and checked.

        Args:
            sample_ids: Each once, in any order; everything else is in the same order.
            embeddings: By space, [n, d] or n vectors; they are scaled to length 1.
            scores: By name, n numbers in [0, 1], NaN or None for unknown.
            metadata: By name, n numbers or texts, None for unknown.
            probabilities: [n, C], NaN rows for unknown.
            classes: C class names.
            fingerprints: n times 32 bytes or None.
            flags: By kind, n booleans.
            boxes: Of a detector: n lists of boxes, see `Detections.build`.
            committee: [M, n, C].
            passes: [S, n, C].

        Raises:
            InputError: An id comes twice, an embedding has NaN, infinity or another dimension
                (all are named), or an array does not fit.
        """
        order = np.array(sorted(range(len(sample_ids)), key=sample_ids.__getitem__), dtype=np.intp)
        ids = tuple(sample_ids[i] for i in order)
        twice = sorted({a for a, b in pairwise(ids) if a == b})
        if twice:
            raise InputError(f"{len(twice)} samples come twice in the pool: {named(twice)}")
        rows = slice(None) if (np.diff(order) == 1).all() else order  # what is in order: no copy
        stacked = {
            s: stack_vectors(sample_ids, v, space=s)[rows] for s, v in (embeddings or {}).items()
        }
        return Pool(
            ids,
            stacked,
            {k: np.asarray(v, dtype=np.float64)[order] for k, v in (scores or {}).items()},
            {k: column(v)[order] for k, v in (metadata or {}).items()},
            None if probabilities is None else np.asarray(probabilities, dtype=np.float32)[order],
            tuple(classes),
            None if fingerprints is None else fingerprint_words(fingerprints)[order],
            {k: np.asarray(v, dtype=np.bool_)[order] for k, v in (flags or {}).items()},
            None if boxes is None else Detections.build(boxes, classes).taken(order),
            None if committee is None else np.asarray(committee, dtype=np.float32)[:, order],
            None if passes is None else np.asarray(passes, dtype=np.float32)[:, order],
        )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.sample_ids)

    @property
    def predicted(self) -> bool:
        """Whether the model in service has predicted any of the samples."""
        if self.detections is not None:
            return bool(self.detections.predicted.any())
        return self.probabilities is not None and bool(np.isfinite(self.probabilities).any())


def _at(sample_ids: Sequence[str], rows: Iterable[Any]) -> list[str]:
    return [sample_ids[int(row)] for row in rows]


def column(values: Sequence[Any]) -> NDArray[Any]:
    """Return a metadata column: float64 when all that is known are numbers, else object of text."""
    known = [v for v in values if v is not None]
    numeric = all(isinstance(v, int | float | np.number) for v in known)
    if numeric and not any(isinstance(v, bool | np.bool_) for v in known):
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    texts = np.empty(len(values), dtype=object)
    texts[:] = [None if v is None else str(v) for v in values]
    return texts


def _check_rows(rows: int, expected: int, name: str) -> None:
    if rows != expected:
        raise InputError(f"{name!r} has {rows} rows for {expected} samples")


def _check_lengths(
    sample_ids: Sequence[str],
    embeddings: Mapping[str, NDArray[np.float32]],
    fingerprints: NDArray[np.uint64] | None,
    metadata: Mapping[str, NDArray[Any]],
) -> None:
    n = len(sample_ids)
    for space, matrix in embeddings.items():
        _check_rows(len(matrix), n, f"embeddings of {space}")
        if matrix.ndim != 2:
            raise InputError(f"embeddings of {space!r} must have the shape [n, d]")
        bad = np.flatnonzero(~np.isfinite(squared_norms(matrix)))
        if len(bad):
            raise InputError(
                f"{len(bad)} embeddings hold NaN or infinity: " + named(_at(sample_ids, bad)),
                where=f"embeddings of the space {space!r}",
                remedy="Run the stage infer again (`visionloop run intake`): it embeds them anew",
            )
    if fingerprints is not None:
        _check_rows(len(fingerprints), n, "fingerprints")
    for name, values in metadata.items():
        _check_rows(len(values), n, name)
