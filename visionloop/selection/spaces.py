"""The embeddings of a lake that a selection needs, in memory once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from visionloop.errors import InputError
from visionloop.selection.notes import EMBED, INTAKE
from visionloop.selection.pool import named

if TYPE_CHECKING:
    from visionloop.lake import Lake

_MOVED = 1 << 14  # rows that are moved at a time


class Spaces:
    """The embeddings that a selection needs, each space read once.

    Args:
        lake: The lake.
        names: The spaces, each as often as it comes; an empty name is none.
        version: Lake version; empty for the newest.
        among: Samples to read; None for all.

    Attributes:
        everywhere: Samples that have an embedding in every one of them.

    Raises:
        InputError: The lake does not have a space.
    """

    def __init__(
        self, lake: Lake, names: list[str], version: str, among: list[str] | None = None
    ) -> None:
        self._place: dict[str, dict[str, int]] = {}
        self._vectors: dict[str, Any] = {}
        have = lake.spaces(version=version or None)
        for name in dict.fromkeys(name for name in names if name):
            if name not in have:
                raise no_space(name, have)
            embedded, vectors = lake.embeddings(name, among, version=version or None)
            self._place[name] = {sample: row for row, sample in enumerate(embedded)}
            self._vectors[name] = vectors
        pa.default_memory_pool().release_unused()  # the files' ids, several times
        self.everywhere: Collection[str] = ()
        if len(self._place) == 1:  # no second set of them all
            (self.everywhere,) = (place.keys() for place in self._place.values())
        elif self._place:
            self.everywhere = set.intersection(*(set(place) for place in self._place.values()))

    def split(self, ids: list[str]) -> tuple[list[str], dict[str, int]]:
        """Return the samples with all embeddings, ascending, and how many others, by space."""
        excluded: dict[str, int] = {}
        for name, place in self._place.items():
            wanted = set(ids)
            # The keys, not their equals: a million ids are held once.
            left = [sample for sample in place if sample in wanted]
            if len(left) < len(ids):
                excluded[f"not embedded in {name}"] = len(ids) - len(left)
            ids = left
        return ids, excluded

    def embedded(self, ids: list[str]) -> list[str]:
        """Return the samples with all embeddings."""
        return [one for one in ids if all(one in place for place in self._place.values())]

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return the vectors of some samples, by space.

        Raises:
            InputError: A sample has none.
        """
        result = {}
        for name, place in self._place.items():
            missing = [sample for sample in ids if sample not in place]
            if missing:
                raise no_vector(missing, name)
            rows = np.array([place[sample] for sample in ids], dtype=np.intp)
            x = self._vectors[name]
            all_of_it = len(rows) == len(x) and bool((rows == np.arange(len(x))).all())
            result[name] = x if all_of_it else x[rows]
        return result

    def give_up(self, ids: list[str]) -> dict[str, Any]:
        """Return the vectors of some samples without a second copy of them, and forget all others.

        Args:
            ids: Samples that have an embedding in every space, in ascending order.
        """
        result = {}
        for name in list(self._place):
            place, x = self._place.pop(name), self._vectors.pop(name)
            rows = np.array([place[sample] for sample in ids], dtype=np.intp)
            # Rows ascend, so none is written over before it was read.
            for start in range(0, len(rows), _MOVED):
                some = rows[start : start + _MOVED]
                x[start : start + len(some)] = x[some]
            result[name] = x[: len(rows)]
        self.everywhere = ()
        return result


def no_vector(sample_ids: list[str], space: str) -> InputError:
    """Return the error of samples that were asked for and have no vector."""
    return InputError(
        f"{len(sample_ids)} samples have no embedding in the space {space!r}: " + named(sample_ids),
        where="selection.strategies",
        remedy=f"Give the ids of samples of this lake, or run `{INTAKE}`, which embeds them",
    )


def no_space(name: str, have: Collection[str]) -> InputError:
    """Return the error of a space that is not there."""
    return InputError(
        f"the lake has no embeddings of the space {name!r}",
        where="selection.space",
        remedy=f"Use one of {', '.join(have)}" if have else EMBED,
    )
