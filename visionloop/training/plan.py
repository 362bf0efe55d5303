"""What a training is told, and what it answers: files in the lake, so that any pod can do it.

A training in progress keeps them in a folder of its own, ``training/<loop>/<model id>``, beside its
checkpoint. The plan names every image by its URI: who trains needs the bucket, and no catalog.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from visionloop.errors import InputError, VisionloopError
from visionloop.lake.lake import absent
from visionloop.lake.storage import join, open_storage
from visionloop.training.parameters import TrainingConfig
from visionloop.training.training_set import TrainingSet

if TYPE_CHECKING:
    from visionloop.lake import Lake
    from visionloop.lake.storage import Storage

PLAN_FILE = "plan.json"
SAMPLES_FILE = "samples.parquet"
CHECKPOINT_FILE = "checkpoint.pt"
RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
_ONE_TRY_SECONDS = 60.0
# What nobody has touched for so long is of a training that nobody will take up again.
_ABANDONED = timedelta(days=7)


@dataclass(frozen=True)
class Plan:
    """One model to train.

    Attributes:
        model_id: Its id.
        training_set: Samples with their labels.
        media: URI by sample id; those of the set that the lake has.
        classes: Names of the classes, in the order of the probabilities.
        parameters: How to train.
        round_id: The round that trains it.
        lake_version: The version that the set was read at.
        bundle: URI of the folder that gets the model.
        folder: URI of the folder that the training keeps its files in.
    """

    model_id: str
    training_set: TrainingSet
    media: dict[str, str]
    classes: list[str]
    parameters: TrainingConfig
    round_id: str
    lake_version: str
    bundle: str
    folder: str

    @property
    def storage(self) -> Storage:
        """The lake's storage."""
        return open_storage(self.folder)

    def path(self, name: str) -> str:
        """Return the URI of a file of the training."""
        return join(self.folder, name)

    def present(self) -> None:
        """Raise where the lake went away: its folder must not be made anew by who writes to it."""
        if not self.storage.exists(self.path(PLAN_FILE)):
            raise absent(self.folder)

    def save(self) -> str:
        """Write the plan into the lake, and return its URI."""
        rows = self.training_set.rows
        table = pa.table(
            {
                "sample_id": pa.array([sample_id for sample_id, _ in rows], pa.string()),
                "label": pa.array([label for _, label in rows], pa.string()),
                "uri": pa.array([self.media.get(sample_id) for sample_id, _ in rows], pa.string()),
                "automatic": pa.array(
                    [sample_id in self.training_set.automatic for sample_id, _ in rows], pa.bool_()
                ),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        written = {
            "model_id": self.model_id,
            "arm": self.training_set.arm,
            "training_set": self.training_set.digest,
            "classes": self.classes,
            "parameters": self.parameters.model_dump(mode="json"),
            "round_id": self.round_id,
            "lake_version": self.lake_version,
            "bundle": self.bundle,
        }
        self.storage.write(self.path(SAMPLES_FILE), buffer.getvalue())
        self.storage.write(self.path(PLAN_FILE), json.dumps(written, indent=1).encode())
        return self.path(PLAN_FILE)

    @classmethod
    def load(cls, uri: str) -> Plan:
        """Read a plan.

        Args:
            uri: What `save` returned.

        Raises:
            InputError: It is no plan, or its samples are another's.
            StorageError: It cannot be read.
        """
        storage = open_storage(uri)
        folder = uri.removesuffix(f"/{PLAN_FILE}")
        try:
            written: dict[str, Any] = json.loads(storage.read(uri))
            table = pq.read_table(io.BytesIO(storage.read(join(folder, SAMPLES_FILE))))
            names = ("sample_id", "label", "uri", "automatic")
            rows = [table[name].to_pylist() for name in names]
            automatic = frozenset(s for s, one in zip(rows[0], rows[3], strict=True) if one)
            pairs = tuple(zip(rows[0], rows[1], strict=True))
            held = TrainingSet(written.pop("arm"), pairs, automatic)
            whole = held.digest == written.pop("training_set")
            parameters = TrainingConfig.model_validate(written.pop("parameters"))
        except (ValueError, KeyError, pa.ArrowInvalid) as error:
            raise InputError(
                f"this is no plan of a training: {type(error).__name__}: {error}",
                where=uri,
                remedy="Run the stage train again: it writes its plan anew",
            ) from error
        if not whole:
            raise InputError(
                "the plan's samples are another training's",
                where=uri,
                remedy="Run the stage train again: it writes its plan anew",
            )
        media = {sample: place for sample, place in zip(rows[0], rows[2], strict=True) if place}
        return cls(training_set=held, media=media, parameters=parameters, folder=folder, **written)


@dataclass(frozen=True)
class Unread:
    """A labelled image that could not be read.

    Attributes:
        sample_id: The sample.
        uri: Where its bytes should lie.
        reason: Why not, one word.
        detail: The storage's or the decoder's words.
    """

    sample_id: str
    uri: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Result:
    """What a training answers, besides the bundle.

    Attributes:
        card: SHA-256 of the bundle's card, in hex.
        training_set: Digest of what was trained on: the plan's set less what could not be read.
        unread: What could not be read.
        summary: Loss, accuracy on augmented images, temperature, seconds and device.
        trained_at: When it ended, UTC, ISO 8601.
    """

    card: str
    training_set: str
    unread: list[Unread]
    summary: dict[str, Any]
    trained_at: str

    def save(self, plan: Plan) -> None:
        """Write the result into the lake."""
        plan.storage.write(plan.path(RESULT_FILE), json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, plan: Plan) -> Result | None:
        """Return the result of a training that has ended; None where it or its bundle lacks."""
        from hashlib import sha256

        from visionloop.inference.model import CARD_FILE

        storage, card = plan.storage, join(plan.bundle, CARD_FILE)
        if not storage.exists(plan.path(RESULT_FILE)) or not storage.exists(card):
            return None
        held = json.loads(storage.read(plan.path(RESULT_FILE)))
        held["unread"] = [Unread(**one) for one in held["unread"]]
        result = cls(**held)
        return result if sha256(storage.read(card)).hexdigest() == result.card else None


def leave_failure(plan: Plan, record: dict[str, Any]) -> None:
    """Leave why a training failed where who asked for it looks.

    Of failures that follow each other the first is the cause; an older one is of an earlier try.

    Args:
        plan: The training.
        record: ``what``, ``where``, ``remedy``, ``exit_status`` and ``at``, seconds since 1970.
    """
    path = plan.path(FAILURE_FILE)
    if plan.storage.exists(path):
        held = json.loads(plan.storage.read(path))
        if record["at"] - held["at"] < _ONE_TRY_SECONDS:
            return
    plan.storage.write(path, json.dumps(record).encode())


def failure_of(plan: Plan) -> VisionloopError | None:
    """Return why a training failed, None where it has not said."""
    if not plan.storage.exists(plan.path(FAILURE_FILE)):
        return None
    record = json.loads(plan.storage.read(plan.path(FAILURE_FILE)))
    kind = InputError if record["exit_status"] == InputError.exit_status else VisionloopError
    return kind(record["what"], where=record["where"], remedy=record["remedy"])


def folder_of(lake: Lake, model_id: str) -> str:
    """Return where the training of a model keeps its files while it goes on."""
    return lake.path("training", lake.loop, model_id)


def discard(lake: Lake, model_ids: list[str]) -> None:
    """Remove what trainings kept: those that are recorded, and those that nobody took up again.

    Args:
        lake: The loop's lake.
        model_ids: The models that are recorded.
    """
    root = lake.path("training", lake.loop)
    if not lake.storage.exists(root):
        return
    before = datetime.now(UTC) - _ABANDONED
    recorded = tuple(f"{folder_of(lake, model_id)}/" for model_id in model_ids)
    for info in list(lake.storage.list(root)):
        if info.uri.startswith(recorded) or info.updated < before:
            lake.storage.delete(info.uri)
