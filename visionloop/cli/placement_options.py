"""Options that say where a pipeline's tasks run: fields of `cluster` in `loop.yaml`, given here."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that compiles pipelines."""
    group = parser.add_argument_group("placement", "fixed when a pipeline is compiled")
    group.add_argument("--image", metavar="IMG", help="image of every task")
    group.add_argument(
        "--queue",
        metavar="NAME",
        help="Kueue LocalQueue that admits the pods that may have an accelerator. A run names its "
        "accelerator later: the pods of one that names none wait in it for cores and memory, so "
        "leave it out where no run will have one",
    )
    group.add_argument(
        "--volume",
        metavar="CLAIM[:PATH]",
        help="PersistentVolumeClaim that every task mounts (at /mnt/visionloop): the place of a "
        "lake that is a folder",
    )
    group.add_argument("--width", type=int, metavar="N", help="shards at work at once (default: 4)")


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the section `cluster` that were given as options.

    Args:
        args: With ``image``, ``queue``, ``volume`` and ``width``.
    """
    given = {name: getattr(args, name) for name in ("image", "queue", "volume", "width")}
    return {name: value for name, value in given.items() if value is not None}


def settings(args: argparse.Namespace) -> list[str]:
    """Return the same as settings of a pipeline's start, ``cluster.queue=gpu``.

    Args:
        args: With ``image``, ``queue``, ``volume`` and ``width``.
    """
    return [f"cluster.{name}={value}" for name, value in fields(args).items()]
