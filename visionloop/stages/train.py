"""Stage `train`: train a model on everything labelled so far."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.errors import InputError, VisionloopError
from visionloop.inference.model import CARD_FILE, ModelCard
from visionloop.progress import progress
from visionloop.stages.artifacts import Artifact, MetricsArtifact, log_metrics
from visionloop.stages.opening import open_stage
from visionloop.task import stage
from visionloop.training.control_arm import control_parameters, random_picks
from visionloop.training.experiments import LOOP, RANDOM, store_bundle, trained_uri, version_with
from visionloop.training.training_set import (
    TrainingSet,
    class_names,
    model_id_for,
    trainable,
)

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.inference.images import Loaded
    from visionloop.lake import Lake
    from visionloop.lake.run import Run
    from visionloop.training.parameters import TrainingConfig


class TrainOutputs(NamedTuple):
    """What `train` returns.

    Attributes:
        lake_version: Lake version with the experiment.
        model_id: The trained model.
        n_labels: Labels that it was trained on.
    """

    lake_version: str
    model_id: str
    n_labels: int


@dataclass(frozen=True)
class _Plan:
    """One model to train."""

    model_id: str
    training_set: TrainingSet
    classes: list[str]
    parameters: TrainingConfig


@dataclass(frozen=True)
class _Fresh:
    """One model that was trained now."""

    row: dict[str, Any]
    training_set: TrainingSet
    unreadable: list[Loaded[NDArray[np.uint8]]]


@stage
def train(
    *,
    config: str,
    lake: str = "",
    lake_version: str = "",
    round_id: str = "",
    architecture: str = "",
    epochs: int = 0,
    model: Artifact | None = None,
    metrics: MetricsArtifact | None = None,
) -> TrainOutputs:
    """Train a model, and the control arm's where the configuration asks for one.

    The training set is every labelled sample of the pool, under its latest label, less the copies
    of holdout samples. The same set with the same parameters in the same round returns the recorded
    model without training again.

    The control arm trains on as many random picks from what selection may choose from (no copies,
    no excluded flags), each round's containing those of the round before; their labels come from
    the oracle and are written to no table but `training_sets`.

    Args:
        config: Text or URI of a ``loop.yaml``.
        lake: Root of the lake; empty for the configuration's.
        lake_version: Version to read at; empty for the newest.
        round_id: The round; empty for the open one.
        architecture: Overrides ``training.architecture``.
        epochs: Overrides ``training.epochs``; 0 does not.
        model: Receives the bundle's folder.
        metrics: Receives labels, loss, accuracy and seconds.

    Raises:
        InputError: There are fewer than two labels, or a label of an unknown class.
        VisionloopError: The loss is not finite, or no image can be read.
    """
    loop, opened = open_stage(config, lake, lake_version=lake_version, round_id=round_id)
    overrides: dict[str, Any] = {"architecture": architecture} if architecture else {}
    if epochs:
        overrides["epochs"] = epochs
    parameters = loop.training.model_copy(update=overrides)
    with opened.run(
        stage="train",
        round_id=round_id,
        base_version=lake_version,
        inputs={"architecture": parameters.architecture, "epochs": parameters.epochs},
    ) as run:
        plans = _plans(loop, opened, run, parameters)
        wanted = {plan.model_id for plan in plans}
        done = {
            row["model_id"]: row
            for row in opened.read("experiments").to_pylist()
            if row["model_id"] in wanted
            and opened.storage.exists(f"{trained_uri(opened, row['model_id'])}/{CARD_FILE}")
        }
        # Trained first and written afterwards: writing takes the writers' lock.
        fresh = [_train(plan, run, opened) for plan in plans if plan.model_id not in done]
        for one in fresh:
            _write(one, run, opened)
        rows = [one.row for one in fresh]
        version = run.commit(
            outputs={"model_id": plans[0].model_id},
            counts={"in": len(plans), "ok": len(rows), "skipped": len(plans) - len(rows)},
        )
    version = version if rows else version_with(opened, plans[0].model_id, version)
    row = next(row for row in [*rows, *done.values()] if row["model_id"] == plans[0].model_id)
    summary = json.loads(row["metrics"])["training"]
    device = summary.pop("device")
    log_metrics(metrics, {"n_labels": row["n_labels"], "trained": bool(rows)} | summary)
    if model is not None:
        _leave_bundle(opened, row, model)
        model.metadata["device"] = device
    return TrainOutputs(version, row["model_id"], int(row["n_labels"]))


def _plans(loop: LoopConfig, lake: Lake, run: Run, parameters: TrainingConfig) -> list[_Plan]:
    from visionloop.labeling.answers import latest_labels

    labels = latest_labels(run.read("labels").to_pylist(), loop.task)
    # At the newest version: what an intake beside this round has put into the holdout stays there.
    samples = lake.read("samples", columns=["sample_id", "split", "fingerprint"]).to_pylist()
    allowed = trainable(samples, loop.selection.copy_distance)
    experiments = run.read("experiments").to_pylist()
    own = sorted(
        (row for row in experiments if row["arm"] == LOOP),
        key=lambda row: (row["round_id"], row["trained_at"]),
    )
    frozen = list(own[-1]["classes"] or []) if own else []
    classes = class_names(loop.classes, frozen, labels.values())
    # In the order of the ids: the set, and so the model, does not depend on who labelled first.
    chosen = TrainingSet(LOOP, tuple(sorted((s, labels[s]) for s in labels if s in allowed)))
    if len(chosen.rows) < 2:
        raise InputError(
            f"{len(chosen.rows)} labelled samples are too few to train on; "
            f"{len(labels)} samples have a label, {len(allowed)} may be trained on",
            where=f"table labels of {lake.uri}",
            remedy="Label at least two samples of the pool: run select and collect_labels first",
        )
    sets = [(chosen, parameters)]
    if parameters.control_arm:
        known = _oracle_labels(loop, lake, run.base, allowed)
        class_names(loop.classes, frozen, [*labels.values(), *known.values()])
        previous = _previous_random(run, experiments)
        picks = random_picks(
            set(known) - _excluded(loop, run),
            len(chosen.rows),
            previous=previous,
            seed=parameters.seed,
            fingerprints={row["sample_id"]: row["fingerprint"] for row in samples},
            copy_distance=loop.selection.copy_distance,
        )
        random = TrainingSet(RANDOM, tuple(sorted((s, known[s]) for s in picks)))
        sets.append((random, control_parameters(parameters, len(random.rows))))
    return [
        _Plan(
            model_id_for(run.round_id, chosen_set, classes, settings), chosen_set, classes, settings
        )
        for chosen_set, settings in sets
    ]


def _excluded(loop: LoopConfig, run: Run) -> set[str]:
    """Return the samples that selection leaves out for their flags."""
    flags = run.read("flags", columns=["subject", "kind"], where="subject_type == 'sample'")
    kinds = set(loop.selection.exclude_flags)
    return {row["subject"] for row in flags.to_pylist() if row["kind"] in kinds}


def _oracle_labels(loop: LoopConfig, lake: Lake, version: str, allowed: set[str]) -> dict[str, str]:
    from visionloop.labeling.oracle import open_oracle

    return open_oracle(loop, lake, version=version or None).labels(sorted(allowed))


def _previous_random(run: Run, experiments: list[dict[str, Any]]) -> list[str]:
    rows = [r for r in experiments if r["arm"] == RANDOM and r["round_id"] < run.round_id]
    if not rows:
        return []
    digest = max(rows, key=lambda row: (row["round_id"], row["trained_at"]))["training_set"]
    held = run.read("training_sets", where=f"training_set == '{digest}'")
    return sorted(held["sample_id"].to_pylist())


def _train(plan: _Plan, run: Run, lake: Lake) -> _Fresh:
    """Train one model and store its bundle."""
    from visionloop.inference.weights import PUBLISHED, read_weights
    from visionloop.training.bundle import write_bundle
    from visionloop.training.trainer import planned_updates, train_network

    parameters = plan.parameters
    media = lake.media(plan.training_set.sample_ids, version=run.base or None)
    images, unreadable = _load(media, parameters.image_size)
    used = plan.training_set.without(loaded.sample_id for loaded in unreadable)
    if not used.rows:
        raise VisionloopError(
            f"none of the {len(plan.training_set.rows)} labelled images can be read: "
            f"{unreadable[0].reason} ({unreadable[0].detail})",
            where=unreadable[0].uri,
            remedy="Bring the images back to where they were ingested from",
        )
    number = {name: i for i, name in enumerate(plan.classes)}
    weights = None
    if parameters.weights and parameters.weights != PUBLISHED:
        weights = read_weights(parameters.weights, setting="training.weights")
    labels = np.array([number[label] for label in used.labels], dtype=np.int64)
    total = planned_updates(labels, parameters)
    with progress("train", total=total, unit="steps") as bar:

        def on_update(done: int, total: int, loss: float, accuracy: float) -> None:
            bar.text = f"{used.arm} arm, loss {loss:.3f}, accuracy on views {accuracy:.2f}"
            bar.advance(done - bar.done)

        trained = train_network(
            np.stack([images[sample_id] for sample_id in used.sample_ids]),
            labels,
            n_classes=len(plan.classes),
            parameters=parameters,
            weights=weights,
            on_update=on_update,
        )
    summary = {
        "loss": trained.loss,
        "training_accuracy": trained.accuracy,
        "temperature": trained.temperature,
        "held_out": trained.held_out,
        "updates": trained.updates,
        "seconds": trained.seconds,
        "device": trained.device,
        "unreadable": len(unreadable),
    }
    if trained.held_out:
        summary["validation_accuracy"] = trained.held_out_accuracy
    now = datetime.now(UTC)
    settings = parameters.model_dump(mode="json", exclude={"control_arm"})
    card = ModelCard(
        model_id=plan.model_id,
        architecture=parameters.architecture,
        classes=plan.classes,
        image_size=parameters.image_size,
        embedding_space=f"model_{plan.model_id.replace('-', '_')}",
        embedding_dim=int(trained.network.get_submodule("head").in_features),  # type: ignore[arg-type]
        training={
            "training_set": used.digest,
            "n_labels": len(used.rows),
            "round_id": run.round_id,
            "arm": used.arm,
            "lake_version": run.base,
            "parameters": settings,
        },
        created_at=now.isoformat(),
    )
    uri = trained_uri(lake, plan.model_id)
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(folder, trained.network, card, temperature=trained.temperature)
        store_bundle(lake, {path.name: path.read_bytes() for path in Path(folder).iterdir()}, uri)
    row = {
        "model_id": plan.model_id,
        "arm": used.arm,
        "architecture": parameters.architecture,
        "classes": plan.classes,
        "parameters": json.dumps(settings, sort_keys=True),
        "training_set": used.digest,
        "n_labels": len(used.rows),
        "uri": uri,
        "state": "trained",
        "metrics": json.dumps({"training": _finite(summary)}),
        "slices": "",
        "confusion": "",
        "trained_at": now,
    }
    return _Fresh(row, used, unreadable)


def _write(one: _Fresh, run: Run, lake: Lake) -> None:
    """Write the experiment, its training set, and what could not be read."""
    from visionloop.inference.images import unreadable_flags
    from visionloop.lake.schemas import arrow_schema

    digest = one.training_set.digest
    if not lake.read("training_sets", where=f"training_set == '{digest}'").num_rows:
        run.append("training_sets", one.training_set.table())
    rows = pa.Table.from_pylist([one.row], schema=arrow_schema("experiments"))
    run.replace("experiments", rows, f"model_id == '{one.row['model_id']}'")
    if one.unreadable:
        subjects = ", ".join(f"'{loaded.sample_id}'" for loaded in one.unreadable)
        flags = unreadable_flags(one.unreadable, stage="train")
        run.replace("flags", flags, f"stage == 'train' and subject in ({subjects})")


def _load(
    media: dict[str, str], size: int
) -> tuple[dict[str, NDArray[np.uint8]], list[Loaded[NDArray[np.uint8]]]]:
    """Return images uint8 [3, size, size] by sample id, and those that cannot be read."""
    from visionloop.inference.images import load_images
    from visionloop.inference.preprocessing import to_input

    def prepare(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # A quarter of the memory of float32, and exact: to_input only divided by 255.
        return np.rint(to_input(image, size) * 255).astype(np.uint8)

    images: dict[str, NDArray[np.uint8]] = {}
    unreadable = []
    for loaded in load_images(media, prepare):
        if loaded.value is None:
            unreadable.append(loaded)
        else:
            images[loaded.sample_id] = loaded.value
    return images, unreadable


def _finite(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in summary.items()
        if not isinstance(value, float) or np.isfinite(value)
    }


def _leave_bundle(lake: Lake, row: dict[str, Any], model: Artifact) -> None:
    if Path(model.path).is_dir():
        shutil.rmtree(model.path)
    lake.storage.download(trained_uri(lake, row["model_id"]), model.path)
    model.metadata.update(
        model_id=row["model_id"],
        architecture=row["architecture"],
        classes=", ".join(row["classes"]),
        training_set=row["training_set"],
        n_labels=int(row["n_labels"]),
        lake_uri=row["uri"],
    )
