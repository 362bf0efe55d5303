"""The embedding map: a stated sample of the pictures, laid out by their embeddings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.report.data_map import EmbeddingMap, MapPoint
from visionloop.monitoring.report.galleries import mark, why
from visionloop.monitoring.report.layout import TSNE_FROM, lay_out
from visionloop.monitoring.report.models import finite
from visionloop.monitoring.report.pictures import Pictures, lookup
from visionloop.monitoring.report.reading import Reader, array, content
from visionloop.monitoring.telling import evidence_lines
from visionloop.words import counted

POINTS = 5_000
# Of the places, at most this share for what was flagged, chosen and labelled, each: the rest shows
# what the pool looks like.
SHARE = 0.25
# Bytes of the map's pictures, base64 among them; the page stays below 15 MB.
BYTES = 5_000_000
SEED = 0
_FLAGS_OF_ONE = 4


class MapSample:
    """Which pictures the map shows.

    Attributes:
        ids: Their ids, ascending.
        n_total: Pictures with an embedding.
        words: How they were drawn.
        space: The embedding space.
        space_words: What it is made from.
        evidence: Samples whose pictures are shown elsewhere too.
    """

    def __init__(
        self,
        reader: Reader,
        flags: pa.Table,
        embedded: NDArray[np.bool_],
        evidence: Collection[str] = (),
    ) -> None:
        """Draw them.

        Args:
            reader: The lake.
            flags: Flags that count now.
            embedded: bool [samples], whether each sample has a vector in the base space.
            evidence: Samples that flags on what is no picture name as their evidence.
        """
        self.evidence = frozenset(evidence)
        self.space, self.space_words = map_space(reader, int(embedded.sum()))
        ids = _ids_of(reader, self.space) if self.space else pa.array([], pa.string())
        ids = ids.take(pc.sort_indices(ids))
        self.n_total = len(ids)
        if self.n_total <= POINTS:
            self.ids: list[str] = ids.to_pylist()
            self.words = f"All {counted(self.n_total, 'picture')} with an embedding."
            return
        wanted = {
            "chosen for labelling": _newest(reader.selections, "sample_id", "selected_at"),
            "flagged": _newest(flags.filter(_of_samples(flags)), "subject", "flagged_at"),
            "labelled": _newest(
                reader.answers.filter(pc.is_valid(reader.answers["label"])),
                "sample_id",
                "created_at",
            ),
            "evidence of what stands": sorted(self.evidence),
        }
        taken = np.zeros(self.n_total, np.bool_)
        told = []
        for what, some in wanted.items():
            inside = np.flatnonzero(mark(ids, some))
            if len(inside) > SHARE * POINTS:
                # `_newest` has the newest first: the places in that order, cut off.
                at = pc.index_in(pa.array(some, pa.string()), value_set=ids).drop_null()
                inside = at.to_numpy()[: int(SHARE * POINTS)]
                told.append(f"the newest {len(inside):,} that were {what}")
            elif len(inside):
                told.append(f"all {len(inside):,} that were {what}")
            taken[inside] = True
        left = np.flatnonzero(~taken)
        rng = np.random.Generator(np.random.PCG64(SEED))
        drawn = rng.choice(left, POINTS - int(taken.sum()), replace=False)
        taken[drawn] = True
        self.ids = ids.filter(pa.array(taken)).to_pylist()
        first = f"{', '.join(told)}, and " if told else ""
        self.words = (
            f"{POINTS:,} of {self.n_total:,} pictures: {first}{len(drawn):,} drawn at random."
        )


def map_space(reader: Reader, n_embedded: int) -> tuple[str, str]:
    """Return the space that is laid out, and what it is made from.

    The newest model's own space, where it holds as many pictures as the base space: there what
    the model takes for alike lies together. Otherwise the base space.

    Args:
        reader: The lake.
        n_embedded: Pictures in the base space.
    """
    held = set(reader.lake.spaces(version=reader.version or None))
    for row in reversed(reader.runs):
        told = content(row["outputs"]) if row["stage"] == "infer" else {}
        own, base = str(told.get("model_space") or ""), str(told.get("space") or "")
        if own in held and len(_ids_of(reader, own)) >= n_embedded:
            name = reader.model_names.get(str(told.get("model_id")), "model in service")
            return own, f"the {name}'s own features"
        if base in held:
            return base, str(told.get("source") or "")
    return "", ""


def _ids_of(reader: Reader, space: str) -> pa.Array:
    found = [
        array(batch["sample_id"]) for batch in reader.batches(f"embeddings_{space}", "sample_id")
    ]
    every = pc.unique(pa.concat_arrays(found)) if found else pa.array([], pa.string())
    # Vectors of samples that were erased meanwhile are of nothing that can be shown.
    return every.filter(pc.is_in(every, value_set=array(reader.samples["sample_id"])))


def _of_samples(flags: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(flags["subject_type"], value_set=pa.array(["sample", "label"]))


def _newest(table: pa.Table, column: str, when: str) -> list[str]:
    order = [(when, "descending"), (column, "ascending")]
    ids = table.select([column, when]).sort_by(order)[column]
    return [one for one in pc.unique(ids).to_pylist() if one]


def embedding_map(
    reader: Reader, sample: MapSample, flags: pa.Table, pictures: Pictures
) -> EmbeddingMap:
    """Return the map.

    Args:
        reader: The lake.
        sample: Which pictures it shows.
        flags: Flags that count now.
        pictures: Pictures of them.
    """
    if not sample.space:
        return EmbeddingMap(reason="No picture has an embedding yet: `infer` has not run.")
    ids, vectors = reader.lake.embeddings(sample.space, sample.ids, version=reader.version or None)
    if len(ids) < 3:
        return EmbeddingMap(
            n_total=sample.n_total, reason="Fewer than three pictures have an embedding."
        )
    places, method = lay_out(vectors)
    facts = lookup(reader.samples, ids, "split", "source", "round_id")
    labels = lookup(reader.answers, ids, "label")
    said = lookup(reader.predictions, ids, "label", "confidence")
    picks = _picks(reader, ids)
    told = _flags(flags, ids, reader.upcoming)
    indices, thumbs = _thumbnails(ids, pictures, [*sample.evidence, *picks, *told])
    points = []
    for i, sample_id in enumerate(ids):
        split, source, round_id = facts.get(sample_id, ("", "", ""))
        prediction, confidence = said.get(sample_id, (None, None))
        pick = picks.get(sample_id)
        flagged = told.get(sample_id, [])
        index, small = indices.get(sample_id, (-1, False))
        points.append(
            MapPoint(
                sample_id,
                pictures.name(sample_id),
                float(places[i, 0]),
                float(places[i, 1]),
                str(labels.get(sample_id, (None,))[0] or ""),
                str(prediction or ""),
                None if (sure := finite(confidence)) is None else round(sure, 4),
                tuple(words for _, words in flagged),
                tuple(dict.fromkeys(title for title, _ in flagged)),
                " ".join(why(pick)) if pick else "",
                str(round_id or ""),
                str(pick["round_id"] or "") if pick else "",
                str(split or ""),
                str(source or ""),
                index,
                small,
            )
        )
    note = "" if method == "t-SNE" else f" Fewer than {TSNE_FROM}: principal components."
    return EmbeddingMap(
        tuple(points),
        tuple(thumbs),
        sample.n_total,
        sample.space,
        sample.space_words,
        method,
        sample.words + note,
        reader.predicting_words,
    )


def _picks(reader: Reader, ids: list[str]) -> dict[str, dict[str, Any]]:
    rows = reader.selections
    mine = rows.filter(pc.is_in(rows["sample_id"], value_set=pa.array(ids, pa.string())))
    return {row["sample_id"]: row for row in mine.sort_by("round_id").to_pylist()}


def _flags(flags: pa.Table, ids: list[str], upcoming: str) -> dict[str, list[tuple[str, str]]]:
    of_samples = flags.filter(_of_samples(flags))
    mine = of_samples.filter(pc.is_in(of_samples["subject"], value_set=pa.array(ids, pa.string())))
    found: dict[str, list[tuple[str, str]]] = {}
    for row in mine.sort_by([("subject", "ascending"), ("kind", "ascending")]).to_pylist():
        kind = KINDS.get(row["kind"])
        title = kind.title if kind else row["kind"].replace("_", " ")
        of = found.setdefault(row["subject"], [])
        if len(of) < _FLAGS_OF_ONE:
            lines = evidence_lines(row, upcoming)
            of.append((title, f"{title}: {lines[0]}" if lines else title))
    return found


def _thumbnails(
    ids: list[str], pictures: Pictures, first: list[str]
) -> tuple[dict[str, tuple[int, bool]], list[str]]:
    """Return each picture's place among the thumbnails, those worth a look before the rest."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    rest = [ids[i] for i in rng.permutation(len(ids))]
    places: dict[str, tuple[int, bool]] = {}
    made: list[str] = []
    spent = 0
    inside = set(ids)
    for sample_id in dict.fromkeys([*sorted(set(first) & inside), *rest]):
        thumb = pictures.for_map(sample_id)
        if thumb is None:
            continue
        spent += len(thumb.uri)
        if spent > BYTES:
            break
        places[sample_id] = (len(made), thumb.small)
        made.append(thumb.uri)
    return places, made
