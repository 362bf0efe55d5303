"""What a model is trained on: which samples, under which labels, named by their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from visionloop.errors import InputError
from visionloop.selection.neighbours import copies_of
from visionloop.selection.pool import fingerprint_words
from visionloop.training.parameters import TrainingConfig
from visionloop.validation import nearest


@dataclass(frozen=True)
class TrainingSet:
    """Samples with their labels, in the order in which they are fed.

    Attributes:
        arm: ``loop``, what the loop labelled; or ``random``, the control arm's picks.
        rows: (sample_id, label) pairs.
        automatic: Samples whose label a model gave. Nothing is trained otherwise for it, so it is
            no part of the digest.
    """

    arm: str
    rows: tuple[tuple[str, str], ...]
    automatic: frozenset[str] = frozenset()

    @property
    def sample_ids(self) -> list[str]:
        """The samples, in order."""
        return [sample_id for sample_id, _ in self.rows]

    @property
    def labels(self) -> list[str]:
        """Their labels, in the same order."""
        return [label for _, label in self.rows]

    @property
    def n_people(self) -> int:
        """Number of labels that people gave."""
        return sum(sample_id not in self.automatic for sample_id, _ in self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 of arm and rows, in lower-case hex."""
        text = json.dumps([self.arm, self.rows], separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def without(self, sample_ids: Iterable[str]) -> TrainingSet:
        """Return the set without some samples."""
        gone = set(sample_ids)
        rows = tuple(row for row in self.rows if row[0] not in gone)
        return TrainingSet(self.arm, rows, self.automatic - gone)

    def table(self) -> pa.Table:
        """Return the rows of the lake's table `training_sets`."""
        n = len(self.rows)
        return pa.table(
            {
                "training_set": pa.array([self.digest] * n, pa.string()),
                "sample_id": pa.array(self.sample_ids, pa.string()),
                "label": pa.array(self.labels, pa.string()),
                "arm": pa.array([self.arm] * n, pa.string()),
                "position": pa.array(range(n), pa.int64()),
                "origin": pa.array(
                    ["model" if one in self.automatic else None for one in self.sample_ids],
                    pa.string(),
                ),
            }
        )


def trainable(samples: Sequence[Mapping[str, Any]], copy_distance: int) -> set[str]:
    """Return the samples that may be trained on: the pool, less copies of holdout samples.

    Args:
        samples: Rows of the table `samples` with sample_id, split and fingerprint.
        copy_distance: Differing fingerprint bits up to which two images are copies; equal ones are,
            also where it is -1.
    """
    pool = [row for row in samples if row["split"] == "pool"]
    holdout = [row for row in samples if row["split"] == "holdout"]
    held_out = {row["sample_id"] for row in holdout}
    who, _ = copies_of(
        fingerprint_words([row["fingerprint"] for row in pool]),
        fingerprint_words([row["fingerprint"] for row in holdout]),
        max(copy_distance, 0),
    )
    return {
        row["sample_id"]
        for row, copy in zip(pool, who, strict=True)
        if copy < 0 and row["sample_id"] not in held_out
    }


def class_names(
    configured: Sequence[str], frozen: Sequence[str], labels: Iterable[str]
) -> list[str]:
    """Return the classes in the order of the probabilities.

    Args:
        configured: ``classes`` of the configuration; may be empty.
        frozen: The classes of the model before; empty before the first model.
        labels: Every label that occurs.

    Returns:
        The configured classes; else the frozen ones; else those of the labels, sorted.

    Raises:
        InputError: A label is none of them, or there are fewer than two classes.
    """
    found = sorted(set(labels))
    classes = list(configured or frozen or found)
    strange = [label for label in found if label not in classes]
    if strange:
        named = ", ".join(f"{label!r}{nearest(label, classes)}" for label in strange[:5])
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        held = "the configuration's classes" if configured else "the classes of the first model"
        raise InputError(
            f"labels of classes that are not among {held}: {named}{more}",
            where="classes",
            remedy="Correct those labels, or name all classes under `classes:`",
        )
    if len(classes) < 2:
        raise InputError(
            f"a classifier needs two classes, there {'is' if len(classes) == 1 else 'are'} "
            f"{len(classes)}",
            where="classes",
            remedy="Name the classes under `classes:` in the configuration, and label some samples",
        )
    return classes


def model_id_for(
    round_id: str, training_set: TrainingSet, classes: Sequence[str], parameters: TrainingConfig
) -> str:
    """Return the id of the model that this set and these parameters give.

    ``m<round>-<hash>`` for the loop's own model, ``r<round>-<hash>`` for the control arm's.

    Args:
        round_id: The round that trains.
        training_set: What is trained on.
        classes: Names of the classes, in the order of the probabilities.
        parameters: The configuration's section; where it is trained changes no model.
    """
    text = json.dumps([training_set.digest, list(classes), parameters.identity()], sort_keys=True)
    letter = "r" if training_set.arm == "random" else "m"
    return f"{letter}{round_id}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
