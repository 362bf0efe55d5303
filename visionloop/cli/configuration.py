"""Options that several commands share, and the configuration and arguments behind them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from visionloop.cli.from_afar import refuse_lake_of_pods
from visionloop.errors import InputError
from visionloop.submission import starting
from visionloop.submission.starting import absolute as absolute

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


def add_pipeline_options(
    parser: argparse.ArgumentParser, *, pipeline: str = "", required: bool = True
) -> None:
    """Add the options of a command that starts a pipeline.

    Args:
        parser: The command's parser.
        pipeline: The one that it starts; empty: the person names it.
        required: Whether the command does nothing without one.
    """
    if pipeline:
        parser.set_defaults(pipeline=pipeline)
    else:
        parser.add_argument(
            "pipeline",
            metavar="PIPELINE",
            nargs=None if required else "?",
            help="for example round or intake",
        )
    parser.add_argument(
        "--config", required=required, metavar="FILE", help="loop.yaml, path or URI"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="a parameter of the pipeline (n_samples=50) or a field of the configuration "
        "(training.batch_size=16); may be given again",
    )


def add_lake_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that works on a lake without a pipeline."""
    parser.add_argument("--lake", metavar="URI", help="root of the lake: a path, file:// or gs://")
    parser.add_argument("--config", metavar="FILE", help="loop.yaml, path or URI")
    parser.add_argument("--loop", metavar="NAME", help="name of the loop in the lake")
    parser.add_argument("--catalog", metavar="URI", help="PostgreSQL catalog of a gs:// lake")


def lake_config(
    args: argparse.Namespace, overrides: dict[str, Any] | None = None, *, looks_only: bool = False
) -> LoopConfig:
    """Return the configuration of a command that works on a lake.

    Args:
        args: With ``lake``, ``config``, ``loop`` and ``catalog``, which win over the file's.
        overrides: More values by dotted path.
        looks_only: Whether the command does without a lake that is out of reach.

    Returns:
        The configuration.

    Raises:
        InputError: Neither a lake nor a configuration was named, the configuration is wrong, or
            the lake is on a volume that only pods mount.
    """
    from visionloop.config import load_config

    values = dict(overrides or {})
    if args.lake:
        values["lake"] = absolute(args.lake)
    if args.loop:
        values["name"] = args.loop
    if args.catalog:
        values["catalog"] = args.catalog
    if args.config:
        config = load_config(args.config, overrides=values)
        if not looks_only:
            refuse_lake_of_pods(config)
        return config
    if args.lake and not args.loop:
        values["name"] = only_loop(values["lake"], str(values.get("catalog", "")))
    if not args.lake:
        raise InputError(
            "no lake was named", remedy="Give --lake URI, or --config with a loop.yaml that has one"
        )
    return load_config("{}", overrides=values)


def only_loop(lake: str, catalog: str) -> str:
    """Return the loop that is meant where nobody named one.

    Args:
        lake: Root of the lake.
        catalog: Its catalog, empty for SQLite inside a file lake.

    Returns:
        The one loop of the lake; ``default`` in a new lake.

    Raises:
        InputError: The lake holds several loops, and none is called ``default``.
    """
    from visionloop.lake import Lake

    loops = Lake.loops(lake, catalog=catalog)
    if len(loops) == 1:
        return loops[0]
    if loops and "default" not in loops:
        raise InputError(
            f"the lake holds {len(loops)} loops: {', '.join(loops)}",
            where=lake,
            remedy="Name one with --loop",
        )
    return "default"


def open_existing(lake: str, catalog: str, loop: str) -> Lake:
    """Open a lake for a command that only reads: a mistyped name must not make a new one.

    Args:
        lake: Root of the lake.
        catalog: Its catalog.
        loop: Name of the loop.

    Raises:
        InputError: There is no lake, or no loop of that name in it.
    """
    from visionloop.lake import Lake
    from visionloop.validation import nearest

    loops = Lake.loops(lake, catalog=catalog)
    if not loops:
        raise InputError("there is no lake here", where=lake, remedy="Check the path or URI")
    if loop not in loops:
        raise InputError(
            f"the lake holds no loop `{loop}`{nearest(loop, loops)}",
            where=lake,
            remedy=f"Name one of {', '.join(loops)} with --loop",
        )
    return Lake.open(lake, catalog=catalog, loop=loop)


def start_arguments(args: argparse.Namespace) -> tuple[str, LoopConfig, dict[str, Any]]:
    """Return what a pipeline is started with.

    Args:
        args: With ``pipeline``, ``config`` and ``settings``.

    Returns:
        The pipeline's name, the configuration with its fields overridden, and the arguments.
    """
    return starting.start_arguments(args.pipeline, args.config, args.settings)
