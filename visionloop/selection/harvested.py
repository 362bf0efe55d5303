"""The harvested images that tell about similar ones, found without holding everybody's vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from visionloop.lake import parts
from visionloop.selection.config import SelectionConfig
from visionloop.selection.inputs import HARVESTED
from visionloop.selection.lines import DEPLOYED, SIMILAR, UNCERTAINTIES
from visionloop.selection.material import deployed_scores
from visionloop.selection.pool import Harvested, stack_vectors
from visionloop.vectors.exact import Floats

if TYPE_CHECKING:
    from visionloop.lake import Lake


def asked_for(config: SelectionConfig) -> list[str]:
    """Return the scores of the deployed model that a configuration uses, without their prefix."""
    if config.strategy == "auto":
        return [config.score] if config.schedule.deployed else []
    names = []
    for line in config.strategies:
        score = line.input.score_name() if line.input.score else ""
        for prefix in (SIMILAR, DEPLOYED):
            if score.startswith(prefix):
                names.append(score.removeprefix(prefix))
                break
    return [name for name in UNCERTAINTIES if name in names]


def read_harvested(
    lake: Lake, config: SelectionConfig, version: str
) -> tuple[Harvested | None, bool]:
    """Return the harvested images that a selection of one task would compare similar ones with.

    They are the first by id of those that are in the pool, `HARVESTED` for each score.

    Args:
        lake: The lake.
        config: The configuration, with its embedding space.
        version: Lake version.

    Returns:
        The images, None where no score is asked for or none was harvested; and whether more were
        harvested than these.

    Memory: some times `HARVESTED` ids, and the vectors of these images.
    """
    names = asked_for(config)
    number = 2 * HARVESTED
    while names:
        first, more = parts.smallest(lake, "confidences", "sample_id", number, version)
        found = _of_first(lake, config.space, version, first)
        known = [int(np.isfinite(found.scores[name]).sum()) for name in names]
        if not more or min(known) >= HARVESTED:
            cut = _cut(found, names)
            return cut, cut is not None and max(known) > HARVESTED
        number *= 4
    return None, False


def _of_first(lake: Lake, space: str, version: str, first: list[str]) -> Harvested:
    def rows_of(table: str, wanted: Collection[str], *columns: str) -> Any:
        return parts.rows_of(lake, table, wanted, columns=list(columns), version=version)

    rows = rows_of("samples", set(first), "sample_id", "split").to_pylist()
    pool = sorted(row["sample_id"] for row in rows if row["split"] == "pool")
    vectors: Callable[..., tuple[list[str], Floats]] = lake.embeddings
    ids, x = vectors(space, pool, version=version)
    members = set(ids)
    scores = deployed_scores(lambda table, *names: rows_of(table, members, *names), ids)
    nothing = np.full(len(ids), np.nan)
    told = {name: scores.get(DEPLOYED + name, nothing) for name in UNCERTAINTIES}
    return Harvested(tuple(ids), stack_vectors(ids, x, space=space), told)


def _cut(found: Harvested, names: list[str]) -> Harvested | None:
    """Return the images that tell one of the scores, the first of each."""
    scores = {}
    for name in names:
        told = np.flatnonzero(np.isfinite(found.scores[name]))[:HARVESTED]
        scores[name] = np.full(len(found.sample_ids), np.nan)
        scores[name][told] = found.scores[name][told]
    rows = np.flatnonzero(np.isfinite(np.stack(list(scores.values()))).any(axis=0))
    if not len(rows):
        return None
    ids = tuple(found.sample_ids[row] for row in rows)
    return Harvested(ids, found.x[rows], {name: scores[name][rows] for name in names})
