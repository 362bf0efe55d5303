"""Trains what a plan says, in this process or in one of a group, and stores the bundle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from visionloop.inference.model import CARD_FILE, ModelCard
from visionloop.inference.weights import PUBLISHED, read_weights
from visionloop.progress import progress
from visionloop.training.attendance import Attendance
from visionloop.training.bundle import write_bundle
from visionloop.training.checkpoint import Checkpoints, identity_of
from visionloop.training.determinism import choose_device
from visionloop.training.experiments import store_bundle
from visionloop.training.group import ALONE, Group
from visionloop.training.images import training_images
from visionloop.training.interruption import notice
from visionloop.training.plan import CHECKPOINT_FILE, Plan, Result, Unread
from visionloop.training.trainer import OnUpdate, Trained, planned_updates, train_network
from visionloop.training.training_set import TrainingSet


def do(plan: Plan, group: Group = ALONE) -> Result:
    """Train a model, and leave its bundle and the result in the lake.

    A training that was interrupted goes on from its checkpoint. SIGTERM leaves one at once, and so
    does a TrainJob that nobody waits for any more.

    Args:
        plan: What to train; it was saved.
        group: The processes that train together, each of which calls this; the first one writes.

    Raises:
        InputError: The set, the parameters or the weights do not fit together.
        Interrupted: SIGTERM came, or nobody waits for the job.
        VisionloopError: The loss is not finite, or no image can be read.
    """
    images, used, unread = training_images(plan, group)
    parameters = plan.parameters
    weights = None
    if parameters.weights and parameters.weights != PUBLISHED:
        weights = read_weights(parameters.weights, setting="training.weights")
    number = {name: i for i, name in enumerate(plan.classes)}
    labels = np.array([number[label] for label in used.labels], dtype=np.int64)
    checkpoints = _checkpoints(plan, used, weights, group) if parameters.checkpoint_steps else None
    waited_for = Attendance(plan) if parameters.runner == "trainjob" and group.leads else None
    with (
        _shown(used.arm, planned_updates(labels, parameters), group) as on_update,
        notice(wanted=checkpoints is not None) as noticed,
        waited_for.watched() if waited_for else nullcontext(),
    ):
        trained = train_network(
            images,
            labels,
            n_classes=len(plan.classes),
            parameters=parameters,
            weights=weights,
            on_update=on_update,
            checkpoints=checkpoints,
            interrupted=lambda: noticed() or bool(waited_for and waited_for.over()),
            group=group,
        )
    now = datetime.now(UTC).isoformat()
    card = _store(plan, trained, used, now) if group.leads else ""
    result = Result(card, used.digest, unread, _summary(trained, unread, group.size), now)
    if group.leads:
        result.save(plan)
    return result


def _checkpoints(plan: Plan, used: TrainingSet, weights: bytes | None, group: Group) -> Checkpoints:
    import torch

    identity = identity_of(
        plan.model_id,
        used.digest,
        plan.classes,
        plan.parameters.identity(),
        hashlib.sha256(weights or b"").hexdigest(),
        group.size,
        choose_device(plan.parameters.device),
        torch.__version__,
    )
    return Checkpoints(
        plan.storage, plan.path(CHECKPOINT_FILE), identity, plan.parameters.checkpoint_steps
    )


@contextmanager
def _shown(arm: str, total: int, group: Group) -> Iterator[OnUpdate | None]:
    """Show the progress of the process that leads."""
    if not group.leads:
        yield None
        return
    with progress("train", total=total, unit="steps") as bar:

        def on_update(done: int, total: int, loss: float, accuracy: float) -> None:
            bar.text = f"{arm} arm, loss {loss:.3f}, accuracy on views {accuracy:.2f}"
            bar.advance(done - bar.done)

        yield on_update


def _store(plan: Plan, trained: Trained, used: TrainingSet, created_at: str) -> str:
    """Write a trained network's bundle into the lake, and return the SHA-256 of its card."""
    card = ModelCard(
        model_id=plan.model_id,
        architecture=plan.parameters.architecture,
        classes=plan.classes,
        image_size=plan.parameters.image_size,
        embedding_space=f"model_{plan.model_id.replace('-', '_')}",
        embedding_dim=int(trained.network.get_submodule("head").in_features),  # type: ignore[arg-type]
        training={
            "training_set": used.digest,
            "n_labels": used.n_people,
            "n_automatic": len(used.automatic),
            "round_id": plan.round_id,
            "arm": used.arm,
            "lake_version": plan.lake_version,
            "parameters": plan.parameters.identity(),
        },
        created_at=created_at,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(folder, trained.network, card, temperature=trained.temperature)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    plan.present()
    store_bundle(plan.storage, files, plan.bundle)
    return hashlib.sha256(files[CARD_FILE]).hexdigest()


def _summary(trained: Trained, unread: list[Unread], processes: int) -> dict[str, Any]:
    summary = {
        "loss": trained.loss,
        "training_accuracy": trained.accuracy,
        "temperature": trained.temperature,
        "held_out": trained.held_out,
        "updates": trained.updates,
        "seconds": trained.seconds,
        "device": trained.device,
        "processes": processes,
        "unreadable": len(unread),
    }
    if trained.held_out:
        summary["validation_accuracy"] = trained.held_out_accuracy
    return {
        name: value
        for name, value in summary.items()
        if not isinstance(value, float) or np.isfinite(value)
    }
