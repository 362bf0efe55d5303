"""How much of a round's budget goes to asking again, and about what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.labeling.answers import latest_answers
from visionloop.labeling.asked import asked_or_selected, unanswered
from visionloop.labeling.trust.activelab import active_scores
from visionloop.labeling.trust.labelled import Labelled, read_labelled
from visionloop.labeling.trust.suspects import Suspects, find_suspects
from visionloop.lake.schemas import arrow_schema
from visionloop.selection.config import MEDIA_MISSING
from visionloop.selection.in_service import model_in_service
from visionloop.selection.material import space_of_inference

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

Floats = NDArray[np.float64]
# A sample is not asked about for ever: what people do not agree on after this is not to be had.
MOST_TIMES = 3


@dataclass(frozen=True)
class Split:
    """How a budget is split.

    Attributes:
        n_new: How many new samples are asked about.
        rows: What is asked about again: rows of the table `relabels`, the lowest score first.
        told: For a person and the record: counts, and why nothing is asked again.
    """

    n_new: int
    rows: pa.Table
    told: dict[str, Any] = field(default_factory=dict)


def split_budget(
    lake: Lake,
    loop: LoopConfig,
    version: str,
    n: int,
    *,
    round_id: str,
    flags: tuple[str, ...] = (),
) -> Split:
    """Split a budget of answers between new samples and samples that are labelled already.

    Every labelled sample of the pool and every unlabelled one has an ActiveLab score; of the n
    lowest, those that are labelled are asked about again, at most `max_relabel_share` of n and
    never all. Only how many are new follows from this: which, the selection chooses. A labelled
    sample of the holdout is no teacher, so it competes only where its label is suspect, and then on
    the same scale: a wrong label there makes the gate judge every model wrongly. Errors that models
    share are not suspect, so this moves the holdout towards them: automatic labels are proved by
    the labels from before (`visionloop.labeling.auto.labelling`). What was asked
    about again three times is left alone, and so is what still waits for the answer to a request.

    Deterministic: the same version gives the same split.

    Args:
        lake: The lake.
        loop: The loop's configuration; nothing is asked again where `labeling.trust.relabel` is
            ``none``.
        version: Lake version.
        n: The budget, in samples, however many people answer each.
        round_id: The round that asks.
        flags: Kinds of flags whose samples are not selected.

    Cost: that of `read_labelled`, and one pass over the embeddings; memory: a block of them.
    """
    trust = loop.labeling.trust
    none = _rows([])
    if trust.relabel == "none":
        return Split(n, none)
    most = min(int(trust.max_relabel_share * n), n - 1)
    space = space_of_inference(lake, version)
    labelled = read_labelled(lake, loop, space, version)
    if most < 1 or labelled.models is None:
        why = "the budget is too small" if most < 1 else "too little is labelled to doubt any of it"
        return Split(n, none, {"relabelled": 0, "why": why})
    scores, scale = active_scores(labelled.votes, labelled.classes, labelled.linear)
    suspects = find_suspects(labelled.labels, labelled.probabilities, labelled.counts())
    open_to = _may_be_asked(lake, labelled, suspects, version, round_id)
    if not open_to.any():
        return Split(n, none, {"relabelled": 0, "why": "nothing is left to be asked again"})
    new = _lowest(lake, loop, labelled, scale.unlabelled, space, version, n, flags)
    mine = asked_again(np.where(open_to, scores, np.inf), new, n, most)
    model = model_in_service(
        lake.read("experiments", where="arm == 'loop'", version=version or None).to_pylist()
    )
    now = datetime.now(UTC)
    rows = [
        {
            "sample_id": labelled.sample_ids[i],
            "rank": place,
            "score": float(scores[i]),
            "label": labelled.classes[labelled.labels[i]],
            "suggested": labelled.classes[suspects.suggested[i]],
            "model_id": str(model["model_id"]) if model else "",
            "selected_at": now,
        }
        for place, i in enumerate(mine)
    ]
    told = {
        "relabelled": len(mine),
        "of_the_holdout": int(labelled.holdout[mine].sum()),
        "candidates": int(open_to.sum()),
        "unlabelled": len(new),
        "lowest_labelled": float(scores[open_to].min()),
        "lowest_unlabelled": float(new[0]) if len(new) else None,
    }
    return Split(n - len(mine), _rows(rows), told)


def asked_again(labelled: Floats, unlabelled: Floats, n: int, most: int) -> NDArray[np.intp]:
    """Return which labelled samples are among the n lowest of all, the lowest first.

    Args:
        labelled: float64 [m], their scores; infinite for those that are not asked about.
        unlabelled: The scores of the others, ascending; the n lowest suffice. Where scores are
            equal they come first.
        n: The budget.
        most: How many may be labelled at most.
    """
    order = np.lexsort((np.arange(len(labelled)), np.round(labelled, 9)))[:most]
    order = order[np.isfinite(labelled[order])]
    before = np.searchsorted(unlabelled, labelled[order], side="right") + np.arange(len(order))
    return np.asarray(order[before < n])


def _rows(rows: list[dict[str, Any]]) -> pa.Table:
    schema = arrow_schema("relabels")
    return pa.Table.from_pylist(rows, schema=schema).drop_columns(["round_id", "run_id"])


def _may_be_asked(
    lake: Lake, labelled: Labelled, suspects: Suspects, version: str, round_id: str
) -> NDArray[np.bool_]:
    """Return which labelled samples may be asked about again, bool [n]."""
    at = version or None
    times = Counter(
        row["sample_id"]
        for row in lake.read("relabels", columns=["sample_id", "round_id"], version=at).to_pylist()
        if row["round_id"] != round_id
    )
    left_alone = _flagged(lake, (MEDIA_MISSING,), version)
    left_alone |= unanswered(lambda table, *names: lake.read(table, columns=[*names], version=at))
    return np.array(
        [
            times[sample] < MOST_TIMES and sample not in left_alone and (not held_out or suspect)
            for sample, held_out, suspect in zip(
                labelled.sample_ids, labelled.holdout, suspects.flagged, strict=True
            )
        ],
        dtype=np.bool_,
    )


def _lowest(
    lake: Lake,
    loop: LoopConfig,
    labelled: Labelled,
    score: Any,
    space: str,
    version: str,
    n: int,
    flags: tuple[str, ...],
) -> Floats:
    """Return the n lowest scores of samples that nobody was asked about, ascending."""
    at = version or None
    assert labelled.models is not None
    asked = asked_or_selected(lambda table, *names: lake.read(table, columns=[*names], version=at))
    asked |= latest_answers(lake.read("labels", version=at).to_pylist(), loop.task).keys()
    asked |= _flagged(lake, (*flags, MEDIA_MISSING), version)
    outside = lake.read("samples", columns=["sample_id"], where="split != 'pool'", version=at)
    left_out = pa.concat_arrays(
        [
            pa.array(sorted(asked), pa.string()),
            *(chunk.cast(pa.string()) for chunk in outside["sample_id"].chunks),
        ]
    )
    lowest = np.zeros(0)
    for x in _others(lake, space, version, left_out):
        lowest = np.concatenate([lowest, score(labelled.models.predict(x))])
        if len(lowest) > 2 * n:
            lowest = np.partition(lowest, n - 1)[:n]
    return np.sort(lowest)[:n]


def _others(
    lake: Lake, space: str, version: str, left_out: pa.Array
) -> Iterator[NDArray[np.float32]]:
    for ids, vectors in lake.embedding_blocks(space, version=version or None):
        keep = pc.invert(pc.is_in(ids.cast(pa.string()), value_set=left_out))
        keep = keep.to_numpy(zero_copy_only=False) & np.isfinite(vectors).all(axis=1)
        if keep.any():
            yield vectors[keep]


def _flagged(lake: Lake, kinds: tuple[str, ...], version: str) -> set[str]:
    rows = lake.read(
        "flags",
        columns=["subject", "kind"],
        where="subject_type == 'sample'",
        version=version or None,
    )
    names = zip(rows["subject"].to_pylist(), rows["kind"].to_pylist(), strict=True)
    return {subject for subject, kind in names if kind in kinds}
