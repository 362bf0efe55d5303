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
from visionloop.training.calibration import SINGLE_FIT_LABELS, fit_temperature, held_out_rows
from visionloop.training.determinism import choose_device, deterministic
from visionloop.training.network import SMALL_CNN, build_network, published_state
from visionloop.training.parameters import TrainingConfig
from visionloop.training.weights import load_trunk, read_state_dict

if TYPE_CHECKING:
    from torch import nn

# (updates done, updates in all, loss, accuracy on the augmented training images)
OnUpdate = Callable[[int, int, float, float], None]


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
        seconds: Time taken.
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
) -> Trained:
    """Train and calibrate a network.

    With fewer than `SINGLE_FIT_LABELS` labels the network is trained twice: once without the
    held-out labels, which gives the temperature, and once on every label. With more the first
    network is kept. With fewer than `calibration.MIN_LABELS` nothing is held out and T is 1.

    The same images, labels and parameters give the same weights on one machine.

    Args:
        images: uint8 [n, 3, size, size], RGB.
        labels: int64 [n], class of each image, from 0 to n_classes - 1.
        n_classes: Number of classes; some may have no image.
        parameters: How to train.
        weights: Bytes of the state dict that ``parameters.weights`` names.
        on_update: Called after each optimiser step.

    Raises:
        InputError: Fewer than two images, or weights that do not fit.
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
    seed = parameters.seed
    device = choose_device(parameters.device)
    held_out, fits = _fits(labels, parameters)
    plan = [_updates(len(rows), parameters) for rows in fits]
    temperature, held_out_accuracy, done = 1.0, math.nan, 0
    for rows, updates in zip(fits, plan, strict=True):
        with deterministic(seed=seed, threads=_threads(parameters)):
            network = _new_network(n_classes, parameters, weights)

            def step(n: int, loss: float, accuracy: float, before: int = done) -> None:
                if on_update is not None:
                    on_update(before + n, sum(plan), loss, accuracy)

            loss, accuracy = _fit(
                network, images[rows], labels[rows], parameters, updates, device, step
            )
            if len(held_out) and rows is fits[0]:
                logits = _logits(network, images[held_out], device)
                temperature = fit_temperature(logits, labels[held_out])
                held_out_accuracy = float((logits.argmax(axis=1) == labels[held_out]).mean())
        done += updates
    return Trained(
        network.cpu().eval(),
        temperature,
        loss,
        accuracy,
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


def _threads(parameters: TrainingConfig) -> int:
    # The small network's layers are too small to share: two threads gain a third on an idle
    # machine and lose a factor of ten on a busy one.
    return parameters.threads or (1 if parameters.architecture == SMALL_CNN else 0)


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


def _fit(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    parameters: TrainingConfig,
    updates: int,
    device: str,
    on_step: Callable[[int, float, float], None],
) -> tuple[float, float]:
    """Run the optimiser; return loss and accuracy of the last pass."""
    import torch
    from torch.nn.functional import cross_entropy

    from visionloop.training.augmentation import augment
    from visionloop.training.optimiser import AdamW, one_cycle

    network.to(device).train()
    generator = torch.Generator().manual_seed(parameters.seed)
    pixels, target = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = AdamW(network.parameters(), weight_decay=parameters.weight_decay)
    # Batches of nearly equal size: a last batch of one image has no variance to normalise by.
    per_pass = max(1, min(math.ceil(len(images) / parameters.batch_size), len(images) // 2))
    done, loss_mean, accuracy = 0, math.nan, math.nan
    while done < updates:
        order = torch.randperm(len(images), generator=generator)
        losses: list[float] = []
        right = seen = 0
        for start in range(min(per_pass, updates - done)):
            rows = order[start::per_pass]
            x = pixels[rows].to(device).float() / 255
            y = target[rows].to(device)
            if parameters.augment:
                x = augment(x, generator, flip=parameters.flip)
            logits, _ = network(x)
            loss = cross_entropy(logits, y, label_smoothing=parameters.label_smoothing)
            torch.autograd.backward(loss)
            optimiser.step(one_cycle(done, updates, parameters.learning_rate))
            losses.append(float(loss.detach()))
            right += int((logits.detach().argmax(dim=1) == y).sum())
            seen += len(rows)
            done += 1
            if not math.isfinite(losses[-1]):
                raise VisionloopError(
                    f"the loss became {losses[-1]} at step {done} of {updates}",
                    where=f"architecture {parameters.architecture}",
                    remedy="Lower training.learning_rate",
                )
            loss_mean, accuracy = float(np.mean(losses)), right / seen
            on_step(done, loss_mean, accuracy)
    network.eval()
    return loss_mean, accuracy


def _logits(network: nn.Module, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    import torch

    parts: list[Any] = []
    with torch.no_grad():
        for start in range(0, len(images), 256):
            x = torch.from_numpy(images[start : start + 256]).to(device).float() / 255
            parts.append(network(x)[0].cpu().numpy())
    return np.concatenate(parts)
