"""What one task reads of a lake that is larger than its memory: the rows of some samples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from visionloop.lake import parts
from visionloop.selection.pool import NOT_OF_LENGTH_1, Harvested, stack_vectors
from visionloop.selection.spaces import Spaces, no_vector
from visionloop.vectors.exact import Floats, squared_norms

if TYPE_CHECKING:
    import pyarrow as pa

    from visionloop.lake import Lake

# Tables with a row, or several, for every sample, and the column that names it.
_PER_SAMPLE = {
    "samples": "sample_id",
    "metadata": "sample_id",
    "predictions": "sample_id",
    "confidences": "sample_id",
    "flags": "subject",
}
_ROWS = 1 << 14


class _Either(Collection[str]):
    """Samples of a set or keys of a mapping, which have none in common or the same."""

    def __init__(self, one: set[str], other: Mapping[str, object]) -> None:
        self._one, self._other = one, other

    def __contains__(self, name: object) -> bool:
        return name in self._one or name in self._other

    def __iter__(self) -> Iterator[str]:
        yield from self._one
        yield from (name for name in self._other if name not in self._one)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Extract:
    """Some samples of a lake with their vectors; takes the place of the whole lake for them.

    Args:
        lake: The lake.
        version: Its version.
        space: The embedding space.
        sample_ids: In ascending order, each once.
        x: float32 [n, d] in the same order; scaled to length 1 in its place.
        known: Vectors of other samples that matter: labelled ones, and those of queries.
        harvested: Harvested images that tell about similar ones, if any do.
        others: Further embedding spaces, whose vectors are read for all of these samples.

    Attributes:
        everywhere: Samples whose vector is here.
        harvested: As it was given.

    Raises:
        InputError: A vector holds NaN or infinity, or the lake has no such space.
    """

    def __init__(
        self,
        lake: Lake,
        version: str,
        space: str,
        sample_ids: Sequence[str],
        x: Floats,
        known: dict[str, Floats],
        harvested: Harvested | None = None,
        others: Collection[str] = (),
    ) -> None:
        self._lake, self._version, self._space = lake, version, space
        self._ids = list(sample_ids)
        for start in range(0, len(x), _ROWS):
            part = x[start : start + _ROWS]
            norms = np.sqrt(squared_norms(part))
            off = (np.abs(norms - 1.0) > NOT_OF_LENGTH_1) & (norms > 0) & np.isfinite(norms)
            part[off] /= norms[off, None]
        # Of none the number of components would be lost, and the known ones have as many.
        self._x = stack_vectors(self._ids, x, space=space) if self._ids else x
        self._mine = set(self._ids)
        self._known = known
        self.everywhere = _Either(self._mine, known)
        self.harvested = harvested
        among = sorted({*self._mine, *known}) if others else []
        self._others = Spaces(lake, list(others), version, among)

    def read(self, table: str, *columns: str, where: str | None = None) -> pa.Table:
        """Read a table: of one with rows for every sample only those of samples that are here.

        Of the table `samples` the holdout is read, too.
        """
        import pyarrow as pa

        chosen = list(columns) or None
        if table not in _PER_SAMPLE:
            return self._lake.read(table, columns=chosen, where=where, version=self._version)
        wanted = self.everywhere if table == "samples" else self._mine
        rows = parts.rows_of(
            self._lake,
            table,
            wanted,
            key=_PER_SAMPLE[table],
            columns=chosen,
            where=where,
            version=self._version,
        )
        if table != "samples":
            return rows
        holdout = self._lake.read(
            table, columns=chosen, where="split == 'holdout'", version=self._version
        )
        others = [name not in wanted for name in holdout["sample_id"].to_pylist()]
        return pa.concat_tables([rows, holdout.filter(pa.array(others, pa.bool_()))])

    def split(self, ids: list[str]) -> tuple[list[str], dict[str, int]]:
        """Return the samples that are here, and how many are missing in another space, by space."""
        return self._others.split([sample for sample in ids if sample in self._mine])

    def embedded(self, ids: list[str]) -> list[str]:
        """Return the samples whose vector is here, and in the other spaces, too."""
        return self._others.embedded([sample for sample in ids if sample in self.everywhere])

    def vectors(self, ids: Sequence[str]) -> dict[str, Floats]:
        """Return the vectors of some samples, of length 1, by space; without a copy for all.

        Raises:
            InputError: A sample has none.
        """
        if len(ids) == len(self._ids) and all(a == b for a, b in zip(ids, self._ids, strict=True)):
            return {self._space: self._x, **self._others.vectors(ids)}
        missing = [sample for sample in ids if sample not in self.everywhere]
        if missing:
            raise no_vector(missing, self._space)
        result = np.empty((len(ids), self._x.shape[1]), dtype=np.float32)
        for i, name in enumerate(ids):
            own = name in self._mine
            result[i] = self._x[bisect_left(self._ids, name)] if own else self._known[name]
        return {self._space: result, **self._others.vectors(ids)}
