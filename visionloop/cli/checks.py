"""Checks of this machine and of a lake: what was found, and the remedy where it is not right."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from visionloop.words import counted

if TYPE_CHECKING:
    from visionloop.config import LoopConfig

GIGABYTE = 1 << 30
_LEAST_DISK = 2 * GIGABYTE
_LEAST_SHARED_MEMORY = 1 * GIGABYTE


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at.
        state: ``ok``; ``warn``, something will not work or be slow; ``fail``, nothing will work.
        found: What there is, in a few words.
        remedy: What to do; empty when all is well.
    """

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def machine(folder: Path) -> Iterator[Finding]:
    """Check this machine.

    Args:
        folder: Where runs will write.

    Yields:
        One finding a check.
    """
    yield _python()
    yield from _packages()
    if importlib.util.find_spec("pyiceberg") or importlib.util.find_spec("kserve"):
        yield attempt("ONNX Runtime", _onnx_runtime)
        if importlib.util.find_spec("pyiceberg") and importlib.util.find_spec("onnxruntime"):
            yield attempt("networks of infer", _inference)
        yield _torch_pair()
    yield _disk(folder)
    yield _writable(folder)
    yield _processors()
    yield _shared_memory()
    yield _accelerator()


def lake(config: LoopConfig, *, afar: bool = False) -> Iterator[Finding]:
    """Check the lake and the sources of a loop.

    Args:
        config: The loop's configuration.
        afar: Whether pods work with them and this machine is none: what only pods reach cannot be
            told then.

    Yields:
        One finding a check.
    """
    from visionloop.cli.from_afar import attempt_from_afar, on_the_volume
    from visionloop.cli.lake_rights import lake_rights
    from visionloop.lake.storage import local_path, scheme_of

    if scheme_of(config.lake) != "file" and importlib.util.find_spec("pyiceberg") is None:
        yield Finding(
            f"lake {config.lake}",
            "warn",
            "cannot tell from here: the base install reads no lake",
            "The tasks reach it with an account of their own; pip install 'visionloop[lake]' to "
            "check what this one may do",
        )
        return

    def look(
        check: str, uri: str, ask: Callable[[], Finding | str], *, catalog: bool = False
    ) -> Finding:
        if afar:
            return attempt_from_afar(config, check, uri, ask, catalog=catalog)
        return attempt(check, ask)

    mounted = afar and on_the_volume(config, config.lake)
    if scheme_of(config.lake) == "file" and not mounted and not local_path(config.lake).exists():
        # A check must not make what it looks for: the path may be a slip of the hand.
        yield Finding(
            f"lake {config.lake}",
            "warn",
            "does not exist yet",
            "The first ingest makes it; if there should be one, check the path",
        )
    else:
        check = f"lake {config.lake}"
        yield look(check, config.lake, lambda: _lake_answers(config), catalog=True)
        yield look("write to the lake", config.lake, lambda: lake_rights(config.lake))
    for source in config.sources:
        ask = functools.partial(_source, source.uri)
        yield look(f"source {source.uri}", source.uri, ask)
    if config.serving.url:
        yield attempt(f"endpoint {config.serving.url}", lambda: _endpoint(config.serving.url))


def attempt(check: str, look: Callable[[], Finding | str]) -> Finding:
    """Run a check; whatever it raises is its finding.

    Args:
        check: What is looked at.
        look: Returns what it found, as a finding or as words that mean all is well.

    Returns:
        The finding.
    """
    from visionloop.failures import explain

    try:
        found = look()
    except ModuleNotFoundError as error:
        known = explain(error)
        return Finding(check, "warn", f"cannot tell: {known.what}", known.remedy)
    except Exception as error:
        known = explain(error)
        where = f" ({known.where})" if known.where else ""
        return Finding(check, "fail", f"{known.what}{where}", known.remedy)
    return found if isinstance(found, Finding) else Finding(check, "ok", found)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", version)
    return Finding("Python", "fail", version, "Use Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[Finding]:
    """Look at what each extra of the package asks for."""
    groups = {
        "base": ("kfp", "kfp-kubernetes", "pydantic", "pyyaml"),
        "lake": ("pyarrow", "pyiceberg", "pillow"),
        "engine": ("torch", "torchvision"),
        "serve": ("kserve", "uvicorn"),
        "demo": ("scikit-learn",),
    }
    if all(importlib.util.find_spec(name) is None for name in ("pyiceberg", "torch", "kserve")):
        groups = {"base": groups["base"]}
        yield Finding(
            "packages: lake, engine, serve, demo",
            "ok",
            "not installed: the base install compiles, submits and schedules",
        )
    for extra, names in groups.items():
        versions, absent = [], []
        for name in names:
            try:
                versions.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                absent.append(name)
        if not absent:
            yield Finding(f"packages: {extra}", "ok", ", ".join(versions))
        else:
            yield Finding(
                f"packages: {extra}",
                "fail" if extra == "base" else "warn",
                f"missing {', '.join(absent)}",
                f"pip install 'visionloop[{extra}]'"
                if extra != "base"
                else "pip install visionloop",
            )


def _onnx_runtime() -> Finding:
    """Look which build of ONNX Runtime is here, and whether it can use the GPU that is here."""
    held = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            held.append(f"{name} {importlib.metadata.version(name)}")
    if not held:
        return Finding(
            "ONNX Runtime",
            "warn",
            "not installed: this machine runs no models",
            "pip install 'visionloop[lake]', or 'visionloop[gpu]' where there is an NVIDIA GPU",
        )
    if len(held) > 1:
        return Finding(
            "ONNX Runtime",
            "fail",
            f"{held[0]} and {held[1]} are installed over each other",
            "pip uninstall --yes onnxruntime onnxruntime-gpu, then install visionloop[gpu] alone, "
            "or the other extras without it",
        )
    from visionloop.inference.session import SMALLEST, device, start_session, unused_gpu

    found = f"{held[0]}, models run on the {device()}"
    if idle := unused_gpu():
        return Finding(
            "ONNX Runtime",
            "warn",
            f"{held[0]}: {idle}",
            "pip uninstall --yes onnxruntime, then pip install 'visionloop[gpu]'",
        )
    # Raises where there is a GPU that it cannot use.
    start_session(SMALLEST, where=held[0])
    return Finding("ONNX Runtime", "ok", found)


def _inference() -> Finding:
    """Say what the stage `infer` would run networks with here."""
    from visionloop.config import InferenceConfig
    from visionloop.inference.network import choose

    choice = choose(InferenceConfig())
    if choice.lacking:
        remedy = "pip install 'visionloop[lake]'"
        found = f"{choice.told}; {choice.lacking}"
        return Finding("networks of infer", "warn", found, remedy)
    return Finding("networks of infer", "ok", choice.told)


def _torch_pair() -> Finding:
    """Look whether torch and torchvision come from the same build."""
    try:
        torch = importlib.metadata.version("torch")
        vision = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torch build", "ok", "not installed: this machine does not train")
    build, vision_build = torch.partition("+")[2], vision.partition("+")[2]
    if (build == "cpu") != (vision_build == "cpu"):
        return Finding(
            "torch build",
            "fail",
            f"torch {torch} beside torchvision {vision}: torchvision does not import",
            "Install both from the same index: pip install --force-reinstall torch torchvision",
        )
    return Finding("torch build", "ok", f"torch {torch}, torchvision {vision}")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIGABYTE:.1f} GiB free at {there}"
    if free < _LEAST_DISK:
        return Finding("disk", "warn", found, "Free some space, or choose another folder")
    return Finding("disk", "ok", found)


def _writable(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())

    def look() -> str:
        with tempfile.NamedTemporaryFile(dir=there):
            return str(there)

    return attempt("write to the folder", look)


def _processors() -> Finding:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    return Finding("processor", "ok", f"{cores} cores, {memory:.0f} GiB of memory")


def _shared_memory() -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("shared memory", "warn", "no /dev/shm", "Mount one: data loaders use it")
    total = shutil.disk_usage(path).total
    found = f"{total / GIGABYTE:.1f} GiB"
    if total < _LEAST_SHARED_MEMORY:
        return Finding(
            "shared memory",
            "warn",
            found,
            "Give a container more with --shm-size=2g; training with several loaders needs it",
        )
    return Finding("shared memory", "ok", found)


def _accelerator() -> Finding:
    program = shutil.which("nvidia-smi")
    if not program:
        return Finding("accelerator", "ok", "none: everything runs on the processor")
    answer = subprocess.run(
        [program, "-L"], capture_output=True, text=True, timeout=20, check=False
    )
    if answer.returncode:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        return Finding(
            "accelerator",
            "warn",
            f"nvidia-smi fails: {said[0] if said else answer.returncode}",
            "Repair the driver, or train on the processor",
        )
    cards = answer.stdout.strip().splitlines()
    return Finding("accelerator", "ok", "; ".join(card.partition(" (UUID")[0] for card in cards))


def _lake_answers(config: LoopConfig) -> str:
    from visionloop.lake import Lake

    opened = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    version = opened.version()
    if not version:
        return "empty"
    return f"version {version}, {counted(len(opened.rounds.all()), 'round')}"


def _source(uri: str) -> Finding | str:
    from visionloop.lake.storage import open_storage

    for found in open_storage(uri).list(uri):
        return f"for example {found.uri}"
    return Finding(f"source {uri}", "warn", "no files", "Check the path, or add files")


def _endpoint(url: str) -> Finding | str:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v2/health/ready", timeout=5) as answer:
            return f"ready ({answer.status})"
    except urllib.error.HTTPError as error:
        return Finding(
            f"endpoint {url}", "warn", f"answers {error.code}", "Publish a model, then look again"
        )
    except OSError as error:
        return Finding(
            f"endpoint {url}",
            "warn",
            f"does not answer: {error}",
            "Start one with: visionloop serve --model URI",
        )
