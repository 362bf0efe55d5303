"""`visionloop export --to`: opens what a loop knows of its images in FiftyOne or LightlyStudio."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import runpy
from pathlib import Path

from visionloop.cli.configuration import absolute, lake_config, open_existing
from visionloop.cli.export import asked_for
from visionloop.cli.import_ import problems_of, tell
from visionloop.cli.parser import show
from visionloop.errors import InputError

# What is imported of a viewer, and what installs it.
_PACKAGES = {"fiftyone": "fiftyone", "lightly-studio": "lightly_studio"}
# Options that say how a format is written: a viewer gets all that there is.
_OF_FORMATS = {"model": "", "unannotated": False, "splits": True, "table": "csv"}


def run_viewer(args: argparse.Namespace) -> int:
    """Export, say how the viewer opens it, and open it where that is asked for."""
    from visionloop.stages.export_set import Wanted
    from visionloop.stages.export_viewer import export_viewer

    for name, usual in _OF_FORMATS.items():
        if getattr(args, name) != usual:
            option = {"splits": "no-splits"}.get(name, name)
            raise InputError(
                f"--to tells a viewer all there is, and --{option} is for --format",
                remedy=f"Leave --{option} out, or use --format",
            )
    if args.launch and importlib.util.find_spec(_PACKAGES[args.to]) is None:
        raise InputError(
            f"{args.to} is not installed here",
            where="--launch",
            remedy=f"pip install {args.to}, best in an environment of its own, or leave --launch "
            "out and run the lines that are printed",
        )
    what = asked_for(args)
    config = lake_config(args)
    lake = open_existing(config.lake, config.catalog, config.name)
    with problems_of(args.problems) as problems:
        made = export_viewer(
            lake,
            args.to,
            absolute(args.target),
            Wanted(what, args.version, task=config.task),
            media=args.media,
            force=args.force,
            problems=problems,
        )
    left = ", ".join(f"{n:,} {why}" for why, n in made["left_out"].items()) or "none"
    lines = [
        f"{made['asked']:,} samples: {made['written']:,} written, left out: {left}"
        + (f", not in the lake: {made['not_in_lake']:,}" if made["not_in_lake"] else ""),
        f"{made['labels']:,} labels, {made['predicted']:,} predictions, "
        f"{made['flagged']:,} samples with flags",
        f"{absolute(args.target)}, from version {made['lake_version']}; it opens with this Python:",
        "",
        *(f"    {line}" for line in made["lines"]),
    ]
    show({**made, "target": absolute(args.target)}, as_json=args.json, text="\n".join(lines))
    if not args.json:
        tell(problems)
    if args.launch:
        _launch(args.to, absolute(args.target))
    return 0


def _launch(viewer: str, target: str) -> None:
    from visionloop.lake.storage import local_path, normalise

    folder = local_path(normalise(target))
    if viewer == "fiftyone":
        fiftyone = importlib.import_module("fiftyone")
        dataset = fiftyone.Dataset.from_dir(str(folder), fiftyone.types.FiftyOneDataset)
        fiftyone.launch_app(dataset).wait()
    else:
        runpy.run_path(str(Path(folder) / "open_in_lightly_studio.py"), run_name="__main__")
