"""Embeddings of a space, read a part at a time so that it is never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.vector_files import not_finite
from visionloop.vectors.exact import Floats, Rows

# Reads a space's sample ids and vectors of length 1 a part at a time, in no order.
ReadVectors = Callable[[], Iterable[tuple[pa.Array, Floats]]]


@dataclass(frozen=True)
class Part:
    """Some samples with their vectors.

    Attributes:
        names: Ids, object [n].
        vectors: float32 [n, d].
    """

    names: NDArray[Any]
    vectors: Floats

    def take(self, rows: Rows) -> Part:
        """Return these rows, in this order."""
        return Part(self.names[rows], self.vectors[rows])

    def among(self, wanted: Container[str]) -> Part:
        """Return the rows of these samples."""
        return self.take(np.flatnonzero([name in wanted for name in self.names]))

    def without(self, others: Container[str]) -> Part:
        """Return the rows of all samples but these."""
        return self.take(np.flatnonzero([name not in others for name in self.names]))

    def order(self, uris: Mapping[str, str]) -> Callable[[int], tuple[str, str]]:
        """Return a key that sorts rows as new samples are held to have come: by URI."""
        return lambda row: (uris[self.names[row]], self.names[row])


def parts_of(read_vectors: ReadVectors) -> Iterator[Part]:
    """Yield what is finite, each part in ascending order of its ids."""
    for ids, vectors in read_vectors():
        part = Part(np.array(ids.to_pylist(), dtype=object), vectors)
        sound = np.setdiff1d(np.arange(len(part.names)), not_finite(vectors))
        yield part.take(sound[np.argsort(part.names[sound], kind="stable")])


def joined(parts: list[Part]) -> Part:
    """Return several parts as one."""
    held = [part for part in parts if len(part.names)]
    if not held:
        return Part(np.zeros(0, dtype=object), np.zeros((0, 0), dtype=np.float32))
    return Part(
        np.concatenate([part.names for part in held]),
        np.concatenate([part.vectors for part in held]),
    )
