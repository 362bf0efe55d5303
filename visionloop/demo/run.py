"""Drives the demo: delivers images, runs the round's pipeline, sends traffic, tells what happened.

It is the customer and the world around the loop, never a part of it: each stage that it shows is a
component of the pipelines that run on a cluster, and each number comes out of the lake.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.demo.servers import Server, free_port, running
from visionloop.demo.summary import round_summary
from visionloop.errors import InputError
from visionloop.monitoring.report_place import report_uri

if TYPE_CHECKING:
    from rich.console import Console

    from visionloop.config import LoopConfig
    from visionloop.demo.world import World
    from visionloop.lake import Lake

NAME = "digits"
BUDGET = 20
REQUESTS = 400
SHIFTED_SHARE = 0.15
SEED = 0


def run_demo(
    directory: str | Path = "visionloop-demo",
    rounds: int = 3,
    *,
    fresh: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the whole loop on scikit-learn's digits.

    A demo that was stopped half way goes on where it stopped; one that has ended shows its end, or
    goes on for more rounds.

    Args:
        directory: Folder for the images, the lake, logs, ``summary.json`` and ``report.html``.
        rounds: Turns of the loop.
        fresh: Remove what an earlier demo left in the folder, and start anew.
        progress: Whether to show a person what goes on.

    Returns:
        The content of ``summary.json``.

    Raises:
        InputError: The folder holds something else, or `rounds` is not positive.
        VisionloopError: A stage or a server failed.
    """
    from rich.console import Console

    if rounds < 1:
        raise InputError(f"{rounds} rounds", where="--rounds", remedy="Give 1 or more")
    console = Console(stderr=True, highlight=False, quiet=not progress)
    folder = _prepare(Path(directory), fresh=fresh)
    if len(done := _done(folder)) >= rounds:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        console.print(
            f"These {len(done)} rounds were run before; --fresh (make demo FRESH=1) starts anew."
        )
        _say_end(console, summary, folder)
        return summary
    from visionloop.demo.world import World

    world = World(folder, seed=SEED)
    config = _configure(folder, world)
    with contextlib.ExitStack() as stack:
        predictor = _start_servers(stack, folder, config)
        for number in range(len(done), rounds):
            with _clock(folder, number) as clock:
                done.append(_turn(number, folder, config, world, predictor, clock, console))
            _write(folder, done, config)
    summary = _write(folder, done, config)
    _say_end(console, summary, folder)
    return summary


def _prepare(folder: Path, *, fresh: bool) -> Path:
    folder = folder.expanduser().absolute()
    marker = folder / ".visionloop-demo"
    try:
        if folder.exists() and any(folder.iterdir()) and not marker.exists():
            raise InputError(
                "the folder is not empty and holds no demo",
                where=str(folder),
                remedy="Choose another one with --dir",
            )
        if fresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise InputError(
            f"cannot use the folder: {error.strerror}",
            where=str(folder),
            remedy="Choose one that may be written, with --dir",
        ) from error
    return folder


def _configure(folder: Path, world: World) -> LoopConfig:
    """Write the demo's loop.yaml: what a team would write for the same loop."""
    import yaml

    from visionloop.config import load_config

    path = folder / "loop.yaml"
    settings = {
        "name": NAME,
        "classes": world.classes,
        "lake": "lake",
        "sources": [{"uri": "bucket", "metadata": "sidecar"}],
        "holdout": {
            "fraction": 0.3,
            "max_samples": 300,
            "group_by": world.group_key,
            "seed": SEED,
        },
        "selection": {"n_samples": BUDGET, "strategy": "auto", "seed": SEED},
        "labeling": {"provider": "oracle", "labels": "truth.csv"},
        "training": {"architecture": "small_cnn", "image_size": 32, "control_arm": True},
        "gates": {"min_accuracy": 0.7, "max_drop": 0.02},
        "serving": {"url": f"http://127.0.0.1:{free_port()}"},
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return load_config(path)


def _start_servers(stack: contextlib.ExitStack, folder: Path, config: LoopConfig) -> Server:
    lake = _lake(config)
    from visionloop.serving.pointer import pointer_uri

    sink = f"http://127.0.0.1:{free_port()}"
    collector = stack.enter_context(
        running(
            "collector",
            sink,
            folder / "logs" / "collector.log",
            *("collect", "--lake", lake.uri, "--loop", NAME),
            *("--port", sink.rpartition(":")[2]),
        )
    )
    predictor = stack.enter_context(
        running(
            "predictor",
            config.serving.url,
            folder / "logs" / "predictor.log",
            *("serve", "--model", pointer_uri(lake, config.endpoint), "--name", config.endpoint),
            *("--port", config.serving.url.rpartition(":")[2], "--events", sink),
        )
    )
    collector.wait_until_up("/")
    return predictor


def _lake(config: LoopConfig) -> Lake:
    from visionloop.lake import Lake

    return Lake.open(config.lake, catalog=config.catalog, loop=config.name)


def _turn(
    number: int,
    folder: Path,
    config: LoopConfig,
    world: World,
    predictor: Server,
    clock: Callable[[], float],
    console: Console,
) -> dict[str, Any]:
    """One round: deliver, run the round's pipeline, send traffic, harvest what was logged."""
    from visionloop.demo.traffic import send_traffic
    from visionloop.pipelines.arguments import pipeline_arguments
    from visionloop.runner.local import run_pipeline

    delivered = world.deliver(number)
    _plant(config, world, number)
    planted = ", ".join(
        f"{n} {kind.replace('_', ' ')}" for kind, n in world.planted(number).items()
    )
    console.print(
        f"\n[bold]Round {number}[/]  {delivered} files arrive; put in: {planted}", soft_wrap=True
    )
    console_on = not console.quiet
    predictor.wait_until_up("/")
    held = _lake(config).rounds.get(f"{number:04d}")
    if held is None or held.state != "done":  # a stopped demo may have ended after the round
        turn = run_pipeline(
            "round", pipeline_arguments(config, "round"), folder, progress=console_on
        )
        turn.raise_for_failure()
    sent = send_traffic(
        config.serving.url,
        config.endpoint,
        world.traffic(number),
        seed=SEED + number,
        n_requests=REQUESTS,
        shifted_share=SHIFTED_SHARE,
        log=folder / "traffic" / f"{number:04d}.jsonl",
    )
    console.print(
        f"  traffic         {sent.seconds:6.1f} s  {sent.requests} requests, "
        f"{sent.answered} images answered, {sent.failed} failed"
    )
    harvest = run_pipeline(
        "harvest", pipeline_arguments(config, "harvest"), folder, progress=console_on
    )
    harvest.raise_for_failure()
    seconds = clock()
    told = round_summary(_lake(config), number, sent.answered, seconds)
    random = f", random {told['random_accuracy']:.3f}" if told["random_accuracy"] else ""
    console.print(
        f"  [bold]{told['labels']} labels: accuracy {told['accuracy']:.3f}[/]{random}; "
        f"{told['events_harvested']} of {told['events_logged']} confidences harvested; "
        f"{seconds:.0f} s",
        soft_wrap=True,
    )
    return told


@contextlib.contextmanager
def _clock(folder: Path, number: int) -> Iterator[Callable[[], float]]:
    """Count the seconds of a round over every process that worked on it, also those killed."""
    path = folder / "logs" / f"seconds-{number:04d}"
    path.parent.mkdir(exist_ok=True)
    began = time.monotonic() - (float(path.read_text() or 0) if path.exists() else 0.0)
    stopped = threading.Event()

    def note() -> None:
        while not stopped.wait(1.0):
            path.write_text(f"{time.monotonic() - began:.1f}")

    threading.Thread(target=note, daemon=True).start()
    try:
        yield lambda: time.monotonic() - began
    finally:
        stopped.set()


def _plant(config: LoopConfig, world: World, number: int) -> None:
    """Leave the counts of what was put in where the report finds them, beside what was found."""
    lake = _lake(config)
    counts = {f"{n:04d}": world.planted(n) for n in range(number + 1)}
    lake.storage.write(lake.path("demo", "planted.json"), json.dumps(counts).encode())


def _done(folder: Path) -> list[dict[str, Any]]:
    path = folder / "summary.json"
    if not path.exists():
        return []
    try:
        rounds: list[dict[str, Any]] = json.loads(path.read_text())["rounds"]
    except (ValueError, KeyError):
        return []
    return rounds


def _write(folder: Path, rounds: list[dict[str, Any]], config: LoopConfig) -> dict[str, Any]:
    lake = _lake(config)
    summary = {
        "rounds": rounds,
        "seconds": round(sum(told["seconds"] for told in rounds), 1),
        "lake": lake.uri,
        "report": str(folder / "report.html"),
    }
    report = report_uri(lake)
    if lake.storage.exists(report):
        (folder / "report.html").write_bytes(lake.storage.read(report))
    # Written whole or not at all: it tells a stopped demo where to go on.
    lake.storage.write(str(folder / "summary.json"), json.dumps(summary, indent=2).encode())
    return summary


def _say_end(console: Console, summary: dict[str, Any], folder: Path) -> None:
    from rich.table import Table

    table = Table(title="Accuracy on the frozen holdout", title_justify="left")
    for name in ("round", "labels", "accuracy", "random arm", "difference", "harvested", "seconds"):
        table.add_column(name, justify="right")
    for told in summary["rounds"]:
        random = told["random_accuracy"]
        table.add_row(
            str(told["round"]),
            str(told["labels"]),
            f"{told['accuracy']:.3f}",
            f"{random:.3f}" if random is not None else "",
            f"{told['accuracy'] - random:+.3f}" if random is not None else "",
            f"{told['events_harvested']} of {told['events_logged']}",
            f"{told['seconds']:.1f}",
        )
    console.print()
    console.print(table)
    console.print(
        f"{summary['seconds']:.0f} s in all\n"
        f"report   {summary['report']}\n"
        f"summary  {folder / 'summary.json'}\n"
        f"lake     {summary['lake']}\n"
        f"config   {folder / 'loop.yaml'}  (try: visionloop run round --config {folder}/loop.yaml)",
        soft_wrap=True,
    )
