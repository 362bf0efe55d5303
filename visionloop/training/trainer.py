"""Trains one network on images that fit into memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError, VisionloopError
from visionloop.progress import log
from visionloop.training.architectures import SMALL_CNN
from visionloop.training.calibration import SINGLE_FIT_LABELS, fit_temperature, held_out_rows
from visionloop.training.checkpoint import Checkpoints, state_of
from visionloop.training.determinism import choose_device, deterministic, usable_threads
from visionloop.training.fitting import Fit
from visionloop.training.group import ALONE, Group
from visionloop.training.network import build_network, published_state
from visionloop.training.parameters import TrainingConfig
from visionloop.training.weights import load_trunk, read_state_dict

if TYPE_CHECKING:
    from torch import nn

# (updates done, updates in all, loss, accuracy on the augmented training images)
OnUpdate = Callable[[int, int, float, float], None]


class Interrupted(VisionloopError):
    """The training was asked to stop, and left a checkpoint."""


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: The module, on the CPU, in evaluation mode.
        temperature: What logits are divided by before the softmax.
        loss: Mean training loss of the last pass.
        accuracy: Accuracy on the augmented training images of the last pass.
        held_out_accuracy: Accuracy on the labels held out for calibration, NaN where there were
            none. An estimate from few labels: the holdout is what models are judged on.
        held_out: How many labels were held out.
        updates: Optimiser steps of the final fit.
        seconds: Time taken, by all tries together.
        device: Where it was trained.
    """

    network: nn.Module
    temperature: float
    loss: float
    accuracy: float
    held_out_accuracy: float
    held_out: int
    updates: int
    seconds: float
    device: str


def train_network(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    n_classes: int,
    parameters: TrainingConfig,
    weights: bytes | None = None,
    on_update: OnUpdate | None = None,
    checkpoints: Checkpoints | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> Trained:
    """Train and calibrate a network.

    With fewer than `SINGLE_FIT_LABELS` labels the network is trained twice: once without the
    held-out labels, which gives the temperature, and once on every label. With more the first
    network is kept. With fewer than `calibration.MIN_LABELS` nothing is held out and T is 1.

    The same images, labels and parameters give the same weights on one machine, whether or not the
    training was interrupted and taken up again.

    Args:
        images: uint8 [n, 3, size, size], RGB.
        labels: int64 [n], class of each image, from 0 to n_classes - 1.
        n_classes: Number of classes; some may have no image.
        parameters: How to train.
        weights: Bytes of the state dict that ``parameters.weights`` names.
        on_update: Called after each optimiser step.
        checkpoints: Where to go on from, and what is written as the training goes.
        interrupted: Asked at each step whether to leave a checkpoint and stop.
        group: The processes that train together, each of which calls this with the same arguments.

    Raises:
        InputError: Fewer than two images, or weights that do not fit.
        Interrupted: It was asked to stop.
        VisionloopError: The loss is not finite.
    """
    if len(images) < 2:
        raise InputError(
            f"{len(images)} labelled images are too few to train on",
            remedy="Label at least two, of different classes",
        )
    size = parameters.image_size
    if images.dtype != np.uint8 or images.shape[1:] != (3, size, size):
        raise InputError(
            f"training images must be uint8 [n, 3, {size}, {size}], not {images.dtype} "
            f"{list(images.shape)}"
        )
    started = time.monotonic()
    device = choose_device(parameters.device)
    held_out, fits = _fits(labels, parameters)
    plan = [_updates(len(rows), parameters) for rows in fits]
    content = group.from_leader(checkpoints.read) if checkpoints else None
    resumed = state_of(content) if content else None
    temperature, held_out_accuracy = 1.0, math.nan
    if resumed:
        temperature, held_out_accuracy = resumed["temperature"], resumed["held_out_accuracy"]
        started -= resumed["seconds"]
        if group.leads:
            log(f"train: goes on after step {resumed['step']} of {sum(plan)}, from the checkpoint")
    for number in range(resumed["number"] if resumed else 0, len(fits)):
        rows, before = fits[number], sum(plan[:number])
        with deterministic(seed=parameters.seed, threads=_threads(parameters, group)):
            network = _new_network(n_classes, parameters, weights).to(device)
            fit = Fit(network, images, labels, rows, parameters, plan[number], device, group)
            if resumed and resumed["number"] == number:
                fit.restore(resumed)
            while not fit.finished:
                stopping = fit.step(stop=interrupted())
                step = before + fit.at.done
                if on_update is not None:
                    on_update(step, sum(plan), fit.at.loss, fit.at.accuracy)
                if checkpoints and (stopping or step % checkpoints.every == 0):
                    state = fit.state() | {
                        "number": number,
                        "step": step,
                        "temperature": temperature,
                        "held_out_accuracy": held_out_accuracy,
                        "seconds": time.monotonic() - started,
                    }
                    if group.leads:
                        checkpoints.save(state)
                if stopping:
                    raise Interrupted(
                        f"the training was asked to stop, after step {step} of {sum(plan)}",
                        where=checkpoints.uri if checkpoints else "",
                        remedy="Run the task again: it goes on from the checkpoint",
                    )
            network.eval()
            if len(held_out) and number == 0:
                logits = _logits(network, images[held_out], device)
                temperature = fit_temperature(logits, labels[held_out])
                held_out_accuracy = float((logits.argmax(axis=1) == labels[held_out]).mean())
    if group.size > 1:
        state_dict = network.state_dict()
        network = build_network(
            parameters.architecture, n_classes=n_classes, image_size=parameters.image_size
        )
        network.load_state_dict(state_dict)
    return Trained(
        network.cpu().eval(),
        temperature,
        fit.at.loss,
        fit.at.accuracy,
        held_out_accuracy,
        len(held_out),
        plan[-1],
        time.monotonic() - started,
        device,
    )


def planned_updates(labels: NDArray[np.int64], parameters: TrainingConfig) -> int:
    """Return how many optimiser steps `train_network` will take in all."""
    return sum(_updates(len(rows), parameters) for rows in _fits(labels, parameters)[1])


def _fits(
    labels: NDArray[np.int64], parameters: TrainingConfig
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Return the rows held out for calibration, and the rows of each fit, the last one's kept."""
    everything = np.arange(len(labels))
    if not parameters.calibrate:
        return everything[:0], [everything]
    held_out = held_out_rows(labels, parameters.seed)
    rest = np.setdiff1d(everything, held_out)
    refit = bool(len(held_out)) and len(labels) < SINGLE_FIT_LABELS
    return held_out, [rest, everything] if refit else [rest]


def _threads(parameters: TrainingConfig, group: Group) -> int:
    # The small network's layers are too small to share: two threads gain a third on an idle
    # machine and lose a factor of ten on a busy one.
    alone = parameters.threads or (1 if parameters.architecture == SMALL_CNN else 0)
    return alone if group.local_size == 1 else alone or max(1, usable_threads() // group.local_size)


def _updates(n: int, parameters: TrainingConfig) -> int:
    return max(parameters.min_updates, parameters.epochs * math.ceil(n / parameters.batch_size), 1)


def _new_network(n_classes: int, parameters: TrainingConfig, weights: bytes | None) -> nn.Module:
    network = build_network(
        parameters.architecture, n_classes=n_classes, image_size=parameters.image_size
    )
    if parameters.weights == "torchvision":
        state = published_state(parameters.architecture, image_size=parameters.image_size)
        trunk_of(network).load_state_dict(state)
    elif weights is not None:
        state = read_state_dict(weights, where=parameters.weights)
        load_trunk(trunk_of(network), state, where=parameters.weights)
    return network


def trunk_of(network: nn.Module) -> nn.Module:
    """Return the part of a network that makes the embedding."""
    return network.get_submodule("trunk")


def _logits(network: nn.Module, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    import torch

    parts: list[Any] = []
    with torch.no_grad():
        for start in range(0, len(images), 256):
            x = torch.from_numpy(images[start : start + 256]).to(device).float() / 255
            parts.append(network(x)[0].cpu().numpy())
    return np.concatenate(parts)
