"""The embedding map, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapPoint:
    """A picture on the map.

    Attributes:
        sample_id: Its id.
        name: File name.
        x: Place from left to right, in [0, 1].
        y: Place from bottom to top, in [0, 1].
        label: Its label, "" where it has none.
        prediction: What the model takes it for, "" where it was not asked.
        confidence: How sure the model was, in [0, 1]; None where it was not asked.
        flags: Each flag in words: "Blurred: sharpness 0.4, threshold 2.1".
        flag_kinds: Titles of the flags' kinds.
        why: Why it was picked, in words; "" where it was not.
        round_id: Round that brought it into the lake.
        picked_in: Round that picked it, "" for none.
        split: ``pool``, ``holdout`` or ``reserved``.
        source: Its source's name.
        thumbnail: Index into the map's ``thumbnails``, -1 where the page has none of it.
        small: Whether it has so few pixels that they are drawn as squares.
    """

    sample_id: str
    name: str
    x: float
    y: float
    label: str = ""
    prediction: str = ""
    confidence: float | None = None
    flags: tuple[str, ...] = ()
    flag_kinds: tuple[str, ...] = ()
    why: str = ""
    round_id: str = ""
    picked_in: str = ""
    split: str = ""
    source: str = ""
    thumbnail: int = -1
    small: bool = False


@dataclass(frozen=True)
class EmbeddingMap:
    """Pictures laid out so that alike ones lie close together.

    Attributes:
        points: Pictures, in the order of their ids.
        thumbnails: ``data:`` URIs that points name by index.
        n_total: Pictures with an embedding.
        space: Embedding space that was laid out.
        space_words: What it is made from, in words.
        method: ``t-SNE`` or ``PCA``.
        sampling: How the points were drawn, in words: "5,000 of 1,000,000 …".
        predicted_by: In words whose predictions are shown, "" for nobody's.
        reason: Why there is no map, "" where there is one.
    """

    points: tuple[MapPoint, ...] = ()
    thumbnails: tuple[str, ...] = ()
    n_total: int = 0
    space: str = ""
    space_words: str = ""
    method: str = ""
    sampling: str = ""
    predicted_by: str = ""
    reason: str = ""
