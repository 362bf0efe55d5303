"""Brings the answers that a tool hands over together with those that the lake has of a round."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.labeling.opening import answers_alone, provider_name
from visionloop.labeling.provider import Annotation, Box, Collected, Rejected
from visionloop.labeling.requests import PLACES
from visionloop.lake.erasing.tombstones import Tombstones

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

REJECTED = "rejected"
UNKNOWN_CLASS, UNKNOWN_SAMPLE, ERASED = "unknown_class", "unknown_sample", "erased"
# What makes two rows of `annotations` the same answer: a list of answers tells no times.
_SAME = ("sample_id", "external_id", "annotator", "state", "reason", "detail", "label", "boxes",
         "prelabel", "seconds")  # fmt: skip


class Merged:
    """A round's rows of `annotations`, those that were stored and those that came.

    Attributes:
        rows: The rows.
        not_stored: Answers that are not kept, by reason.
        unknown: What a list of answers names that is no sample of the lake.
    """

    def __init__(
        self,
        loop: LoopConfig,
        lake: Lake,
        round_id: str,
        stored: Sequence[Mapping[str, Any]],
        now: datetime,
    ) -> None:
        self._loop, self._round_id, self._now = loop, round_id, now
        self._erased = Tombstones.of(lake)
        self._stored = list(stored)
        self.rows = [dict(row) for row in stored]
        self.not_stored: Counter[str] = Counter()
        self.unknown: list[str] = []

    def take(self, found: Collected, asked: Mapping[str, str], classes: Sequence[str]) -> None:
        """Put what came into the place of what was stored of the same samples.

        Args:
            found: What the tool handed over.
            asked: The samples that it was asked about, with what it calls the requests.
            classes: The loop's classes; empty where nobody named any.

        Raises:
            InputError: A list of answers holds one of a class that is none of them.
        """
        if classes and answers_alone(self._loop):
            _check_classes(found, classes)
        came = [self._row(one, asked, classes) for one in found.annotations]
        came += [self._rejected(one) for one in found.rejected]
        new = [row for row in came if row is not None]
        named = {row["external_id"] for row in new if row["external_id"]}
        # A request that was deleted at the tool takes no answer back that was given to it.
        listed = found.samples - found.gone
        before = {_key(row): row for row in self.rows}
        kept = [
            row
            for row in self.rows
            if row["sample_id"] not in listed and row["external_id"] not in named
        ]
        self.rows = kept + [before.get(_key(row), row) for row in new]

    def changed(self) -> set[str]:
        """Return the samples of which other answers are there than were stored."""
        before, after = ({_key(row) for row in rows} for rows in (self._stored, self.rows))
        return {
            row["sample_id"]
            for row in (*self._stored, *self.rows)
            if (_key(row) in before) != (_key(row) in after)
        }

    def _row(
        self, one: Annotation, asked: Mapping[str, str], classes: Sequence[str]
    ) -> dict[str, Any] | None:
        if one.sample_id not in asked:
            return self._rejected(
                Rejected(
                    one.external_id,
                    one.sample_id,
                    UNKNOWN_SAMPLE,
                    "",
                    one.annotator,
                    one.seconds,
                    one.created_at,
                    one.updated_at,
                )
            )
        names = [one.label] if one.label is not None else []
        strange = {*names, *(box.label for box in one.boxes or ())} - set(classes)
        reason = UNKNOWN_CLASS if classes and strange else ""
        return self._base(one.external_id, one.sample_id) | {
            "annotator": one.annotator,
            "state": REJECTED if reason else one.state,
            "reason": reason,
            "detail": ", ".join(sorted(strange)) if reason else "",
            "label": one.label,
            "boxes": None if one.boxes is None else [stored_box(box) for box in one.boxes],
            "prelabel": one.prelabel,
            "seconds": one.seconds,
            "created_at": one.created_at,
            "updated_at": one.updated_at,
        }

    def _rejected(self, one: Rejected) -> dict[str, Any] | None:
        if one.sample_id and (one.reason == ERASED or one.sample_id in self._erased):
            # Nothing of it comes back into the lake.
            self.not_stored[ERASED] += 1
            return None
        if not one.external_id:
            if one.reason == UNKNOWN_SAMPLE:
                self.unknown.append(one.detail)
            else:
                self.not_stored[one.reason] += 1
            return None
        sample = one.sample_id if one.reason != UNKNOWN_SAMPLE else ""
        return self._base(one.external_id, sample) | {
            "annotator": one.annotator or None,
            "state": REJECTED,
            "reason": one.reason,
            "detail": one.detail or one.sample_id,
            "seconds": one.seconds,
            "created_at": one.created_at or self._now,
            "updated_at": one.updated_at or self._now,
        }

    def _base(self, external_id: str, sample_id: str) -> dict[str, Any]:
        empty = dict.fromkeys((*_SAME, "run_id"))
        return empty | {
            "sample_id": sample_id,
            "provider": provider_name(self._loop),
            "external_id": external_id,
            "task": self._loop.task,
            "round_id": self._round_id,
        }


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row[name] for name in _SAME], sort_keys=True, default=str)


def stored_box(box: Box) -> dict[str, Any]:
    """Return a box as a column of boxes holds it; a person's has no scores."""
    import numpy as np

    # As the column's type rounds them: what comes again is then recognised.
    places = {name: float(np.float32(getattr(box, name))) for name in PLACES}
    return places | {"label": box.label, "scores": None}


def _check_classes(found: Collected, classes: Sequence[str]) -> None:
    strange = sorted({a.label for a in found.annotations if a.label is not None} - set(classes))
    if strange:
        from visionloop.validation import nearest

        named = ", ".join(f"`{label}`" + nearest(label, list(classes)) for label in strange[:5])
        raise InputError(
            f"labels of classes that are not among the loop's classes: {named}",
            where=found.where,
            remedy="Correct the labels, or name every class in `classes:`, a new one at its end; "
            "nothing was stored",
        )
