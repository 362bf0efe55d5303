"""A small world of digits, a loop on it, and what a message has to be."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from visionloop import failures
from visionloop.demo.world import World
from visionloop.errors import VisionloopError
from visionloop.lake import Lake

N_FILES = 40
# What a message ends with that knows no better: a fault that was thought of never says so.
NO_REMEDY = "if the input is right, please report it"


def failure_of(work: Callable[[], Any]) -> VisionloopError:
    """Return the error that some work fails with, as its person sees it.

    It says what, where and the remedy, and fits on one paragraph.
    """
    try:
        result = work()
    except Exception as error:
        told = failures.explain(error)
    else:
        pytest.fail(f"nothing failed: {result}")
    assert told.what and told.where and told.remedy, told
    assert NO_REMEDY not in told.remedy, told
    assert "\n" not in str(told).strip(), told
    return told


def doubled(lake: Lake) -> dict[str, list[Any]]:
    """Return what stands twice in a lake that should stand there once, by table."""
    keys = {
        "files": ("uri", "generation"),
        "samples": ("sample_id",),
        "checks": ("subject",),
        "selections": ("round_id", "sample_id"),
        "label_requests": ("round_id", "sample_id"),
        "labels": ("sample_id",),
        "predictions": ("model_id", "sample_id"),
        "experiments": ("model_id",),
        "rounds": ("round_id",),
    }
    found: dict[str, list[Any]] = {}
    for table, names in keys.items():
        held = lake.read(table)
        names = tuple(name for name in names if name in held.column_names)
        rows = [tuple(row[name] for name in names) for row in held.to_pylist()]
        if twice := sorted({str(row) for row in rows if rows.count(row) > 1}):
            found[table] = twice
    for space in lake.spaces():
        ids, _ = lake.embeddings(space)
        if len(ids) != len(set(ids)):
            found[space] = ids
    return found


@dataclass
class SmallLoop:
    """A loop on a few dozen digits, in a folder of its own.

    Attributes:
        folder: Holds the bucket, the truth, the configuration and, by default, the lake.
        settings: What stands in the configuration.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def bucket(self) -> Path:
        """The source of images."""
        return self.folder / "bucket"

    @property
    def config(self) -> str:
        """The configuration, written anew."""
        path = self.folder / "loop.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return str(path)

    @property
    def lake(self) -> Lake:
        """The lake, opened anew."""
        uri = str(self.folder / self.settings["lake"])
        return Lake.open(uri, catalog=self.settings.get("catalog", ""), loop=self.settings["name"])

    def images(self) -> list[Path]:
        """Return the image files of the bucket."""
        return sorted(path for path in self.bucket.rglob("*") if path.suffix in (".png", ".jpg"))

    def take_in(self) -> str:
        """Ingest and embed what is new, in an opened round; return the round's id."""
        from visionloop.stages.infer import infer
        from visionloop.stages.ingest import ingest

        taken = ingest(config=self.config, run_id="test", open_round=True)
        infer(config=self.config, lake_version=taken.lake_version, round_id=taken.round_id)
        return taken.round_id

    def label(self) -> int:
        """Select and label; return how many labels there are."""
        from visionloop.stages.collect_labels import collect_labels
        from visionloop.stages.request_labels import request_labels
        from visionloop.stages.select import select

        select(config=self.config)
        request_labels(config=self.config)
        return collect_labels(config=self.config).n_labels

    def candidate(self) -> tuple[str, str]:
        """Train, evaluate and export a model; return its id and where it lies."""
        from visionloop.stages.evaluate import evaluate
        from visionloop.stages.export import export
        from visionloop.stages.train import train

        model_id = train(config=self.config).model_id
        evaluate(config=self.config, model_id=model_id)
        return model_id, export(config=self.config, model_id=model_id).model_uri

    def publish(self) -> str:
        """Publish a candidate, which ends the round; return its id."""
        from visionloop.stages.publish import publish

        model_id, uri = self.candidate()
        publish(config=self.config, model_id=model_id, model_uri=uri, passed=True)
        return model_id


@pytest.fixture(scope="session")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo's first batch, and the truth about it."""
    folder = tmp_path_factory.mktemp("delivered")
    World(folder).deliver(0)
    return folder


def some_of(delivered: Path, folder: Path, n: int) -> Path:
    """Copy an even sample of the delivered images with their sidecars, and the truth."""
    bucket = delivered / "bucket"
    every = sorted(path for path in bucket.rglob("*") if path.suffix in (".png", ".jpg"))
    for path in every[:: max(1, len(every) // n)][:n]:
        to = folder / "bucket" / path.relative_to(bucket)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
        sidecar = path.with_name(path.name + ".json")
        if sidecar.exists():
            shutil.copy2(sidecar, to.with_name(sidecar.name))
    shutil.copy2(delivered / "truth.csv", folder / "truth.csv")
    return folder


@pytest.fixture
def loop(tmp_path: Path, delivered: Path) -> SmallLoop:
    """Return a loop on a few dozen digits whose oracle knows the truth."""
    folder = some_of(delivered, tmp_path / "loop", N_FILES)
    return SmallLoop(
        folder,
        {
            "name": "faults",
            "lake": "lake",
            "classes": [str(digit) for digit in range(10)],
            "sources": [{"uri": str(folder / "bucket")}],
            "holdout": {"fraction": 0.2},
            "selection": {"n_samples": 8},
            "labeling": {"provider": "oracle", "labels": str(folder / "truth.csv")},
            "training": {"epochs": 1, "min_updates": 2},
        },
    )


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command: exit status, standard output, standard error."""
    from visionloop.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert NO_REMEDY not in err, err
        return status, out, err

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of two megabytes."""
    with _mounted(tmp_path / "small disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as folder:
        yield folder


def resize(disk: Path, size: str) -> None:
    """Give a mounted disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder and what it holds read-only, even for root."""
    if os.geteuid() == 0:
        with _mounted(folder, "--bind", str(folder)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield
        return
    held = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path, mode in held.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in held.items():
            path.chmod(mode)


@contextmanager
def _mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def rights_count() -> Iterator[None]:
    """Let file modes count for root too: take away the capabilities that override them.

    Threads that are started inside inherit it.
    """
    if os.geteuid() != 0:
        yield
        return
    # linux/capability.h: version 3; CAP_DAC_OVERRIDE is bit 1, CAP_DAC_READ_SEARCH bit 2.
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held):
        pytest.skip("root's capabilities cannot be read here")
    without = (ctypes.c_uint32 * 6)(*held)
    without[0] &= ~0b110
    if libc.capset(header, without):
        pytest.skip("root's capabilities cannot be dropped here")
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0
