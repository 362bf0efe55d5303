"""The processes that train one network together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from visionloop.errors import InputError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

# A rank that waits for another one longer than this is told that it is gone. Decoding a large set
# on a slow node comes before the first step, so it is not minutes.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Group:
    """The processes that share each batch, as one of them sees it.

    Attributes:
        rank: This process, from 0.
        size: How many there are.
        local_rank: This process among those of its node.
        local_size: How many there are on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes, in float64; alone, the numbers."""
        if self.size == 1:
            return list(values)
        import torch
        from torch import distributed

        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return [float(value) for value in total]

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[T | None] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found  # type: ignore[return-value]  # all_gather_object has filled it

    def from_leader(self, make: Callable[[], T]) -> T:
        """Return what the leading process makes, in every process."""
        if self.size == 1:
            return make()
        from torch import distributed

        held: list[T | None] = [make() if self.leads else None]
        distributed.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]  # the leader's, also where it is None

    def shared(self, network: nn.Module) -> nn.Module:
        """Return the module to call in training: its gradients are the mean over all processes.

        Batch normalisation takes its statistics over the whole batch, see
        `visionloop.training.synchronised_norm`; the network is changed in place.

        Args:
            network: The network, on the device that trains it.
        """
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        from visionloop.training.synchronised_norm import synchronise

        synchronise(network)
        with warnings.catch_warnings():
            # Its successor is younger than the oldest PyTorch that we run on.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            # Every process computes the same running statistics: there is none to hand around.
            return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Group()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, for as long as the ``with`` block.

    Args:
        device: ``cuda``: gradients cross by NCCL, each process taking the GPU of its number on its
            node; ``cpu``: by Gloo.

    Yields:
        The group.

    Raises:
        InputError: There are more processes on this node than GPUs.
    """
    import torch
    from torch import distributed

    from visionloop import environment

    local_rank, local_size = environment.local_rank()
    if device == "cuda":
        if local_size > torch.cuda.device_count():
            raise InputError(
                f"{local_size} processes cannot share {torch.cuda.device_count()} GPUs",
                where="training.processes",
                remedy="Ask for as many accelerators as processes, or leave training.processes 0",
            )
        torch.cuda.set_device(local_rank)
    # Both on a GPU: numbers that lie on the CPU cross by Gloo.
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE
    )
    yield Group(distributed.get_rank(), distributed.get_world_size(), local_rank, local_size)
    # Not after an error: NCCL would wait for those that still work.
    distributed.destroy_process_group()
