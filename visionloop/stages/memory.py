"""Whether a selection fits the memory of a task, told before it begins instead of by a kill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from visionloop.errors import InputError

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Bytes for each sample beside its vector, and of a task with nothing to do: as measured by
# benchmarks/selection_shards.py, see docs/scale.md.
_BESIDE = {"one task": 1_650, "a shard": 1_450, "a sample": 2_850}
_IDLE = 200 << 20
_GIB = 1 << 30


def limit(files: tuple[Path, ...] = _LIMITS) -> int:
    """Return how many bytes this process may hold: its container's limit, or the machine's memory.

    Args:
        files: Where the kernel tells a container's limit.
    """
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in files:
        try:
            most = min(most, int(file.read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return most


def check_memory(
    held: int, components: int, kind: Literal["one task", "a shard", "a sample"], remedy: str
) -> None:
    """Refuse a selection that would be killed.

    Args:
        held: Embeddings that one task holds.
        components: Of each, float32.
        kind: What they are: all there are, a shard, or a sample that stands for all.
        remedy: What to do besides giving more memory.

    Raises:
        InputError: They do not fit the memory of this task, which is that of all that select.
    """
    needed, there = _IDLE + held * (_BESIDE[kind] + 4 * components), limit()
    if needed > there:
        raise InputError(
            f"selecting from {kind} of {held:,} embeddings of {components:,} components takes "
            f"about {needed / _GIB:.1f} GiB, and a task has {there / _GIB:.1f}",
            where="cluster.select_memory",
            remedy=f"Give {-(-needed // _GIB)}Gi or more, or {remedy}",
        )
