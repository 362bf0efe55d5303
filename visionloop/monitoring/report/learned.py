"""Labels that count, and what the models learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.report.asked import Asked
from visionloop.monitoring.report.data_funnel import Part, Step, parts
from visionloop.monitoring.report.reading import Reader, array


class Labels:
    """Labels that count, and what the models learned from."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        answers = reader.answers
        known = pc.is_valid(answers["label"])
        self._ids = array(answers["sample_id"].filter(known))
        self._origins = array(pc.fill_null(answers["origin"].filter(known), ""))
        self._n_skipped = answers.num_rows - len(self._ids)
        loop = [row for row in reader.experiments if row["arm"] != "random"]
        self._models = {row["round_id"]: row for row in loop}

    def known(self, samples: Iterable[str]) -> set[str]:
        """Return those that have a label."""
        wanted = pa.array(sorted(samples), pa.string())
        return set(wanted.filter(pc.is_in(wanted, value_set=self._ids)).to_pylist())

    def trained_in(self, round_id: str) -> int | None:
        """Return the labels that a round's model learned from, None where it trained none."""
        model = self._models.get(round_id)
        return int(model["n_labels"]) if model and model["n_labels"] else None

    def _training_set(self, round_id: str) -> pa.Array | None:
        model = self._models.get(round_id)
        if model is None or not model["training_set"]:
            return None
        rows = self._reader.read(
            "training_sets", "sample_id", where=f"training_set == '{model['training_set']}'"
        )
        return array(rows["sample_id"]) if rows.num_rows else None

    def learned(self, round_id: str, told: Asked) -> list[Step]:
        """Return the step from a round's answers to what its model learned from."""
        trained = self._training_set(round_id)
        if trained is None:
            return []
        answered = told.labelled
        mine = pa.array(sorted(answered), pa.string())
        inside = pc.is_in(mine, value_set=trained)
        left = mine.filter(pc.invert(inside))
        holdout = pc.sum(pc.is_in(left, value_set=self._reader.holdout)).as_py() or 0
        used = int(pc.sum(inside).as_py() or 0)
        return [
            Step(
                "trained",
                "Labels learned from",
                "labels",
                len(trained),
                len(answered),
                "answered",
                entered=parts(("labels of earlier rounds and imports", len(trained) - used)),
                rest=parts(
                    ("labels of the holdout, which nobody learns from", holdout),
                    ("left out: copies of the holdout, or not readable", len(left) - holdout),
                ),
            )
        ]

    def in_all(self, n_samples: int) -> list[Step]:
        """Return the steps from all pictures to labels, and to what the newest model learned."""
        samples = array(self._reader.samples["sample_id"])
        there = pc.is_in(self._ids, value_set=samples)
        n = int(pc.sum(there).as_py() or 0)
        erased = len(self._ids) - n
        by = Counter(self._origins.to_pylist())
        steps = [
            Step(
                "labels",
                "Labelled",
                "pictures",
                len(self._ids),
                n_samples,
                "samples",
                entered=parts(("labels of pictures that are gone", erased)),
                rest=parts(
                    ("skipped by those who were asked", self._skipped(samples)),
                    ("without a class label", n_samples - n - self._skipped(samples)),
                ),
                kept=tuple(Part(origin_words(name), count) for name, count in sorted(by.items())),
            )
        ]
        newest = max(self._models, default="")
        trained = self._training_set(newest)
        if trained is None:
            return steps
        inside = pc.is_in(self._ids, value_set=trained)
        used = int(pc.sum(inside).as_py() or 0)
        left = self._ids.filter(pc.invert(inside))
        holdout = int(pc.sum(pc.is_in(left, value_set=self._reader.holdout)).as_py() or 0)
        step = Step(
            "trained",
            "Learned from by the newest model",
            "labels",
            len(trained),
            len(self._ids),
            "labels",
            entered=parts(("labels that do not stand any more", len(trained) - used)),
            rest=parts(
                ("labels of the holdout, which nobody learns from", holdout),
                ("newer, left out as copies, or not readable", len(left) - holdout),
            ),
        )
        return [*steps, step]

    def _skipped(self, samples: pa.Array) -> int:
        answers = self._reader.answers
        ids = array(answers["sample_id"].filter(pc.is_null(answers["label"])))
        return int(pc.sum(pc.is_in(ids, value_set=samples)).as_py() or 0)


def origin_words(origin: str) -> str:
    """Return who gave a label, in words."""
    return {
        "import": "imported with the pictures",
        "oracle": "answered by the oracle",
        "csv": "answered in a file",
        "label_studio": "answered in Label Studio",
        "model": "labelled by a model",
        "": "of an unknown origin",
    }.get(origin, f"answered in {origin.replace('_', ' ')}")
