"""Batch normalisation over the batch of all processes.

With a share of the batch in each process, statistics of the share alone would make another model
for each number of processes, and a poor one where a share is small. PyTorch's `SyncBatchNorm` runs
on GPUs only; this runs wherever the group does, so that what trains on eight GPUs is tested on a
CPU.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def synchronise(network: nn.Module) -> None:
    """Let each batch normalisation of a network take its statistics over all processes, in place.

    Names, parameters and buffers stay, so a state dict fits both forms. In evaluation mode nothing
    changes.

    Args:
        network: The network.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm):
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, _synchronised_type()(module))


@functools.cache
def _synchronised_type() -> type[nn.Module]:
    # Defined in a function because torch may be imported only where something is trained.
    import torch
    from torch import distributed
    from torch.nn.modules.batchnorm import _BatchNorm

    class Sum(torch.autograd.Function):
        """The sum over all processes; its gradient is the sum of theirs."""

        @staticmethod
        def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
            total = value.detach().clone()
            distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
            total = gradients[0].contiguous().clone()
            distributed.all_reduce(total)
            return total

    def all_reduce(value: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = Sum.apply(value)
        return total

    class Synchronised(_BatchNorm):
        """A batch normalisation that shares its parameters and buffers with the one it replaces."""

        def __init__(self, replaced: _BatchNorm) -> None:
            super().__init__(
                replaced.num_features,
                eps=replaced.eps,
                momentum=replaced.momentum,
                affine=replaced.affine,
                track_running_stats=replaced.track_running_stats,
            )
            for name, parameter in replaced.named_parameters():
                setattr(self, name, parameter)
            for name, buffer in replaced.named_buffers():
                setattr(self, name, buffer)
            self.train(replaced.training)

        def _check_input_dim(self, input: torch.Tensor) -> None:
            """Take what the replaced one took."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if not self.training:
                return super().forward(input)
            axes = [axis for axis in range(input.dim()) if axis != 1]
            shape = [1, -1] + [1] * (input.dim() - 2)
            here = input.new_full((1,), input.numel() / input.shape[1])
            sums = all_reduce(torch.cat([input.sum(axes), here]))
            n = sums[-1]
            mean = sums[:-1] / n
            # The deviations in a second pass: E[x²] - E[x]² cancels in float32.
            centred = input - mean.view(shape)
            variance = all_reduce((centred * centred).sum(axes)) / n
            self._remember(mean.detach(), variance.detach() * n / (n - 1))
            normalised = centred * (variance + self.eps).rsqrt().view(shape)
            if not self.affine:
                return normalised
            return normalised * self.weight.view(shape) + self.bias.view(shape)

        def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
            if self.running_mean is None or self.running_var is None:
                return
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = self.momentum
                if share is None:
                    share = 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance, share)

    return Synchronised
