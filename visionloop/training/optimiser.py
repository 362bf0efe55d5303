"""AdamW on a one-cycle schedule, through PyTorch's functional form.

Making a `torch.optim.Optimizer` imports PyTorch's compiler, which takes longer (4 s on two cores)
than training the small network; the functional form that the class itself calls does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

WARM_UP = 0.2
START_DIVISOR = 25.0
FINAL_DIVISOR = 25e4


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: a cosine up for a fifth of the steps, then down.

    Source: Smith and Topin, Super-Convergence, 2018 (arXiv 1708.07120).

    Args:
        step: From 0 to steps - 1.
        steps: Steps in all.
        peak: The largest learning rate.
    """
    turn = max(1.0, WARM_UP * steps - 1)
    if step <= turn:
        begin, end, share = peak / START_DIVISOR, peak, step / turn
    else:
        begin, end, share = peak, peak / FINAL_DIVISOR, (step - turn) / max(1.0, steps - 1 - turn)
    return end + (begin - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


class AdamW:
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Args:
        parameters: What is trained.
        weight_decay: Share of each weight that is taken away, times the learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        import torch

        self._parameters = [p for p in parameters if p.requires_grad]
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._counts = [torch.zeros((), device=p.device) for p in self._parameters]

    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients, and clear the gradients."""
        import torch
        from torch.optim.adamw import adamw

        # A parameter that the loss does not depend on has no gradient.
        live = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        gradients: list[torch.Tensor] = [
            gradient for p in self._parameters if (gradient := p.grad) is not None
        ]
        with torch.no_grad():
            adamw(
                [self._parameters[i] for i in live],
                gradients,
                [self._means[i] for i in live],
                [self._squares[i] for i in live],
                [],
                [self._counts[i] for i in live],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
            )
        for parameter in self._parameters:
            parameter.grad = None

    def state(self) -> dict[str, list[torch.Tensor]]:
        """Return the moments and step counts of each parameter; the tensors are its own."""
        return {"means": self._means, "squares": self._squares, "counts": self._counts}

    def restore(self, state: dict[str, list[torch.Tensor]]) -> None:
        """Take over what `state` returned, from any device."""
        for name, own in self.state().items():
            for held, given in zip(own, state[name], strict=True):
                held.copy_(given)
