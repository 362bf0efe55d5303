"""One fit: a network's way through the optimiser, which can be left and taken up at any step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError, VisionloopError
from visionloop.training.group import Group
from visionloop.training.parameters import TrainingConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass
class Position:
    """Where a fit stands between two optimiser steps.

    Attributes:
        done: Steps done.
        order: int64 [n], the order of the current pass; None before the first.
        batch: Batches of the current pass that are done.
        losses: Loss of each of them.
        right: Images of the current pass that the network got right.
        seen: Images of the current pass.
        loss: Mean loss of the pass.
        accuracy: Accuracy on the augmented images of the pass.
    """

    done: int = 0
    order: torch.Tensor | None = None
    batch: int = 0
    losses: list[float] = field(default_factory=list)
    right: int = 0
    seen: int = 0
    loss: float = math.nan
    accuracy: float = math.nan


class Fit:
    """A network, its optimiser and its place in the data.

    Each batch is shared by the processes of the group: process r takes every size-th row of it from
    the r-th on. Order and augmentation are drawn for the whole batch in each process, statistics
    are taken over it, and the loss is its mean, so the number of processes changes the weights by
    float rounding alone; but for dropout, whose masks each process draws for itself.

    Args:
        network: A network on the device that trains it.
        images: uint8 [N, 3, S, S].
        labels: int64 [N].
        rows: int [n], those of them that are trained on.
        parameters: How to train.
        updates: Optimiser steps.
        device: ``cpu`` or ``cuda``.
        group: The processes that train together.

    Raises:
        InputError: There are more processes than images in a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        rows: NDArray[np.intp],
        parameters: TrainingConfig,
        updates: int,
        device: str,
        group: Group,
    ) -> None:
        import torch

        from visionloop.training.optimiser import AdamW

        n = len(rows)
        # Batches of nearly equal size: a last batch of one image has no variance to normalise by.
        self._per_pass = max(1, min(math.ceil(n / parameters.batch_size), n // 2))
        if n // self._per_pass < group.size:
            raise InputError(
                f"{group.size} processes cannot share batches of {n // self._per_pass} images",
                where="training.processes, training.batch_size",
                remedy="Raise training.batch_size, or train with fewer processes",
            )
        self.network, self.updates, self.at = network, updates, Position()
        self._parameters, self._device, self._group = parameters, device, group
        self._pixels, self._target = torch.from_numpy(images), torch.from_numpy(labels)
        self._rows = torch.from_numpy(rows)
        self._generator = torch.Generator().manual_seed(parameters.seed)
        network.train()
        self._module = group.shared(network)
        self._optimiser = AdamW(network.parameters(), weight_decay=parameters.weight_decay)
        if group.rank:
            # The weights were drawn alike in every process; dropout must not be.
            torch.manual_seed(parameters.seed + 1_000_003 * group.rank)

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.at.done >= self.updates

    def step(self, *, stop: bool = False) -> bool:
        """Take one optimiser step.

        Args:
            stop: Whether this process wants all of them to stop after it.

        Returns:
            Whether a process wants that.

        Raises:
            VisionloopError: The loss is not finite.
        """
        import torch

        from visionloop.training.optimiser import one_cycle

        at, parameters = self.at, self._parameters
        if at.order is None or at.batch == self._per_pass:
            at.order = torch.randperm(len(self._rows), generator=self._generator)
            at.batch, at.losses, at.right, at.seen = 0, [], 0, 0
        batch = at.order[at.batch :: self._per_pass]
        loss, mean, right = self._forward(batch)
        torch.autograd.backward(loss)
        self._optimiser.step(one_cycle(at.done, self.updates, parameters.learning_rate))
        mean, all_right, stopping = self._group.sum([mean, right, float(stop)])
        at.losses.append(mean)
        at.right += int(all_right)
        at.seen += len(batch)
        at.batch += 1
        at.done += 1
        if not math.isfinite(mean):
            raise VisionloopError(
                f"the loss became {mean} at step {at.done} of {self.updates}",
                where=f"architecture {parameters.architecture}",
                remedy="Lower training.learning_rate",
            )
        at.loss, at.accuracy = float(np.mean(at.losses)), at.right / at.seen
        return stopping > 0

    def _forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, float, int]:
        """Return the loss to differentiate, this process's share of the mean, and its hits."""
        from torch.nn.functional import cross_entropy

        from visionloop.training.augmentation import augment, draw_views

        group, parameters = self._group, self._parameters
        rows = self._rows[batch[group.rank :: group.size]]
        x = self._pixels[rows].to(self._device).float() / 255
        y = self._target[rows].to(self._device)
        if parameters.augment:
            draws = draw_views(len(batch), self._generator)
            x = augment(x, draws[:, group.rank :: group.size], flip=parameters.flip)
        logits, _ = self._module(x)
        if group.size == 1:
            loss = cross_entropy(logits, y, label_smoothing=parameters.label_smoothing)
            mean = float(loss.detach())
        else:
            total = cross_entropy(
                logits, y, label_smoothing=parameters.label_smoothing, reduction="sum"
            )
            # Gradients are averaged over processes, whose shares differ by an image.
            loss = total * (group.size / len(batch))
            mean = float(total.detach()) / len(batch)
        return loss, mean, int((logits.detach().argmax(dim=1) == y).sum())

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on; called by every process of the group.

        These are the only sources of randomness: PyTorch's generators, one of which is the fit's
        own. NumPy's is not drawn from.
        """
        import torch

        cuda = torch.cuda.get_rng_state() if self._device == "cuda" else None
        return {
            **vars(self.at),
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state(),
            "generator": self._generator.get_state(),
            "generators": self._group.gather([torch.get_rng_state(), cuda]),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken."""
        import torch

        self.at = Position(**{name: state[name] for name in vars(self.at)})
        self.network.load_state_dict(state["network"])
        self._optimiser.restore(state["optimiser"])
        self._generator.set_state(state["generator"])
        cpu, cuda = state["generators"][self._group.rank]
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
