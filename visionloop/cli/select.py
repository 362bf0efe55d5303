"""Choose the samples of a lake that are worth a label.

The configuration is a selection configuration (LightlyOne's are read too) or a whole loop.yaml. The
lake stays as it is unless the picks are saved in it under a name. A selection that was interrupted
is gone on with when the same command is started again.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute, only_loop, open_existing
from visionloop.cli.keyboard import interrupts_arrive
from visionloop.cli.parser import say, show
from visionloop.cli.picks import check_output, text_of, write_picks
from visionloop.errors import InputError, VisionloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from visionloop.lake import Lake
    from visionloop.progress import Progress
    from visionloop.selection.config import SelectionConfig
    from visionloop.selection.greedy import Course
    from visionloop.selection.interruption import Keeper
    from visionloop.selection.record import Made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--lake", metavar="URI", help="root of the lake")
    parser.add_argument("--config", metavar="FILE", help="selection.yaml or loop.yaml")
    parser.add_argument("--loop", metavar="NAME", help="name of the loop in the lake")
    parser.add_argument("--catalog", metavar="URI", help="PostgreSQL catalog of a gs:// lake")
    parser.add_argument(
        "-n", type=int, default=None, metavar="N", help="how many (default: the configuration's)"
    )
    parser.add_argument("--seed", type=int, default=None, help="default: the configuration's")
    parser.add_argument(
        "--version", default="", metavar="ID", help="lake version (default: newest)"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the picks there: .csv or .parquet, by its ending"
    )
    parser.add_argument(
        "--save", metavar="NAME", help="keep the picks in the lake under this name; no round minds"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.n is not None and args.n < 1:
        raise InputError("at least one sample must be asked for", where=f"-n {args.n}")
    if args.seed is not None and args.seed < 0:
        raise InputError("a seed is 0 or more", where=f"--seed {args.seed}")
    with interrupts_arrive():
        settings = _Settings(args)

        from visionloop.selection.accelerated import device_of
        from visionloop.selection.record import picks_table

        # Whatever can be known to fail is known before the lake is read.
        if args.output is not None:
            check_output(Path(args.output))
        device_of(settings.selection.device)
        lake = open_existing(settings.lake, settings.catalog, settings.loop)
        if args.save is not None:
            _check_save(lake, args.save, settings.selection, args.n)
        settings.say_dialect()
        keeper = _keeper(lake, settings, args)
        made = _select(lake, settings, args, keeper)
    for warning in made.warnings:
        say(f"warning: {warning}")
    picks = picks_table(made.rows)
    result = _result(made, settings.selection) | {"picks": picks.to_pylist()}
    written = None
    try:
        if args.output is not None:
            write_picks(picks, Path(args.output))
            written = args.output
        if args.save is not None:
            from visionloop.selection.saved import save_selection

            version = save_selection(lake, args.save, made.rows)
            result["saved"] = {"name": args.save, "lake_version": version}
    except BaseException:
        keeper.write()  # so that the same command under another name has them at once
        raise
    finally:  # what was picked is shown also where it could not be kept
        show(result, as_json=args.json, text=text_of(result, made.advice, written))
    keeper.finish()
    return 0


def _result(made: Made, config: SelectionConfig) -> dict[str, Any]:
    """Return a selection for programs, without its picks."""
    selection = made.selection
    return {
        "n_selected": len(selection.picks),
        "dialect": config.dialect,
        "requested": selection.requested,
        "pool": selection.pool,
        "holdout": made.holdout,
        "eligible": selection.eligible,
        "removed": dict(selection.removed),
        "passed_over": selection.passed_over,
        "flags": list(selection.flags),
        "warnings": list(made.warnings),
        "advice": made.advice.plain(),
        "saved": None,
    }


def _check_save(lake: Lake, name: str, config: SelectionConfig, n: int | None) -> None:
    """Refuse what could not be saved under a name, as far as that is known before the work.

    Raises:
        InputError: The name cannot be one, or other picks have it.
        VisionloopError: The lake cannot be written to.
    """
    from visionloop.cli.lake_rights import lake_rights
    from visionloop.selection.saved import check_name, name_is_taken, saved_already

    check_name(lake, name)
    before = saved_already(lake, name)
    if before:
        most = config.n_samples if n is None else n
        open_end = n is None and config.proportion_samples is not None
        fewer = (n is None and config.dialect == "lightly") or any(
            value is not None and field.startswith("stopping_condition")
            for line in config.strategies
            for field, value in line.strategy
        )
        if not open_end and (before > most or (before < most and not fewer)):
            raise name_is_taken(name, before)
        say(f"the lake has a selection {name}, of {before:,} samples: only the same are saved so")
    rights = lake_rights(lake.uri)
    if rights.state != "ok":
        raise VisionloopError(rights.found, where=f"--save {name}", remedy=rights.remedy)


def _keeper(lake: Lake, settings: _Settings, args: argparse.Namespace) -> Keeper:
    """Return what keeps the picks of an interrupted selection, and say what became of them."""
    from visionloop import __version__, environment
    from visionloop.selection.interruption import Keeper
    from visionloop.selection.queries import digests_of_files

    config, version = settings.selection, args.version or lake.version()
    task = {
        "lake": [lake.uri, lake.loop],
        "selection": config.model_dump(mode="json"),
        "asked": [args.n, args.seed, settings.classes],
    }
    state = {"version": version, "program": __version__, "files": digests_of_files(config)}
    keeper = Keeper(Path(environment.state_folder()), task, state)
    if keeper.outdated:
        say(
            "the lake, a file of a query or visionloop has changed since the interruption: the "
            "selection begins anew"
        )
    if keeper.course.picked:
        say(f"{len(keeper.course.picked):,} picks of an interrupted selection are gone on with")
    if keeper.why_not:
        say(
            f"warning: an interruption would lose the picks, which are kept nowhere: "
            f"{keeper.why_not}"
        )
    return keeper


def _select(lake: Lake, settings: _Settings, args: argparse.Namespace, keeper: Keeper) -> Made:
    """Select with a progress bar, from where an interrupted selection had come."""
    from visionloop.progress import progress
    from visionloop.selection.record import select_from_lake
    from visionloop.vectors.phases import shown

    with progress("select", unit="picks") as bar:
        before = len(keeper.course.picked)
        bar.note("reading the lake")

        def watch(course: Course, wanted: int) -> None:
            if bar.total is None:
                bar.begin(wanted, done=before)
            bar.advance()
            keeper.note()

        try:
            with shown(_phases(bar)):
                made = select_from_lake(
                    lake,
                    settings.selection,
                    args.n,
                    classes=settings.classes,
                    version=str(keeper.state["version"]),
                    seed=args.seed,
                    course=keeper.course,
                    watch=watch,
                )
        except BaseException as error:
            keeper.write()
            if isinstance(error, KeyboardInterrupt):
                raise _stopped(keeper) from error
            raise
    return made


def _stopped(keeper: Keeper) -> VisionloopError:
    """Return what a person is told who has interrupted a selection."""
    picked = len(keeper.course.picked)
    if not picked:
        return VisionloopError(
            "Stopped by the keyboard before the first pick",
            remedy="The same command begins anew",
        )
    if keeper.why_not:
        return VisionloopError(
            f"Stopped by the keyboard; the {picked:,} picks so far are lost: {keeper.why_not}",
            remedy="Let XDG_STATE_HOME name a folder that can be written to",
        )
    return VisionloopError(
        f"Stopped by the keyboard; the {picked:,} picks so far are kept",
        remedy="Start the same command again to go on from there",
    )


def _phases(bar: Progress) -> Callable[[str, float], None]:
    """Return what shows beside the picks how far the work before and after them has come."""
    began: dict[str, tuple[float, float]] = {}

    def tell(name: str, share: float) -> None:
        now = time.monotonic()
        start, before = began.get(name, (now, share))
        if share <= before:  # for the first time, or once more
            began[name] = start, before = now, share
        text = f"{name} {share:.0%}"
        if share > before:
            left = (now - start) * (1 - share) / (share - before)
            text += f", about {left:,.0f} s left of it"
        bar.note(text)

    return tell


class _Settings:
    """Lake, loop and selection, from a loop.yaml or from a selection configuration and options."""

    def __init__(self, args: argparse.Namespace) -> None:
        from pydantic.alias_generators import to_camel

        from visionloop.config import load_config
        from visionloop.documents import absolute_under
        from visionloop.selection.config import (
            WORKER_PARTS,
            SelectionConfig,
            parse_selection_config,
        )

        self.lake = absolute(args.lake) if args.lake else ""
        self.loop: str = args.loop or ""
        self.catalog: str = args.catalog or ""
        self.classes: list[str] = []
        self.selection: SelectionConfig = SelectionConfig()
        self._read_as_lightlys, self._for_the_worker = False, ""
        if args.config:
            data, folder = _read(args.config)
            if "lake" in data:
                config = load_config(args.config)
                self.lake = self.lake or config.lake
                self.loop = args.loop or config.name
                self.catalog = self.catalog or config.catalog
                self.classes = config.classes
                self.selection = config.selection
            else:
                self.selection = parse_selection_config(data, where=args.config, alone=True)
                if folder:
                    self.selection = self.selection.with_files(partial(absolute_under, folder))
                if self.selection.dialect == "lightly":
                    self._read_as_lightlys = "dialect" not in data
                    camel = [to_camel(part) for part in WORKER_PARTS]
                    self._for_the_worker = " and ".join(
                        f"`{part}`" for part in (*WORKER_PARTS, *camel) if data.get(part)
                    )
        if not self.lake:
            raise InputError("no lake was named", remedy="Give --lake URI")
        self.loop = self.loop or only_loop(self.lake, self.catalog)

    def say_dialect(self) -> None:
        """Say where a file is read with LightlyOne's meaning: no random share, for example."""
        if self._read_as_lightlys:
            say(
                "the configuration is read as LightlyOne's (dialect: lightly): nothing is drawn "
                "at random unless it says so; `dialect: visionloop` in it means ours"
            )
        if self._for_the_worker:
            say(f"{self._for_the_worker}: read without effect")


def _read(source: str) -> tuple[dict[str, Any], Path | None]:
    from visionloop.documents import read_document

    data, where, folder = read_document(source, remedy="Give the path of a YAML file")
    if not isinstance(data, dict):
        raise InputError("a selection configuration is a mapping of keys to values", where=where)
    return data, folder
