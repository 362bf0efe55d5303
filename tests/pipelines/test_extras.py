"""Each extra declares what its modules import, and nothing else."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Distributions whose name is not the module's.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.oauth2": "google-auth",
    "google.cloud": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.trace": "opentelemetry-sdk",  # which brings the API
    "simdjson": "pysimdjson",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
# Modules that several distributions share.
SPLIT = ("google", "opentelemetry")
# What each extra runs: everything that these modules reach, also from within functions. The base
# install runs its own rooms, whose functions begin what needs an extra.
ENGINE = (
    "visionloop.stages.",
    "visionloop.cli.select",
    "visionloop.cli.erase",
    "visionloop.cli.lake",
    "visionloop.cli.init",
    "visionloop.cli.metrics",
    "visionloop.cli.report",
    "visionloop.labeling.csv_file",  # a provider's class is named by a person's word
    "visionloop.lean",
    "visionloop.interchange.",  # its formats are named by a person's word
    "visionloop.lake.file_io",  # named to pyiceberg by its path
)
SERVING = ("visionloop.serving.predictor", "visionloop.serving.collector")
# Traces, for whoever named a collector of them: without the extra a stage says so in its log.
TELEMETRY = "visionloop.telemetry"
# The second one is what torchrun starts.
TRAINING = (*ENGINE, "visionloop.training.launch")
STARTS = {
    "lake": ENGINE,
    "engine": TRAINING,
    "serve": SERVING,
    "gpu": (*TRAINING, *SERVING),
    "labelstudio": ("visionloop.labeling.label_studio.", "visionloop.cli.labels"),
    "demo": ("visionloop.demo.",),
    "otel": (TELEMETRY,),
}
# Where PyTorch begins: one task, the export of PyTorch weights that a loop names, the names of
# torchvision's networks, which are looked at only where it is installed, and selection on a GPU.
# And where Label Studio does, for a loop whose labels come from there.
LABEL_STUDIO = "visionloop.labeling.label_studio"
BEYOND = {
    "lake": (
        LABEL_STUDIO,
        TELEMETRY,
        "visionloop.stages.train",
        "visionloop.training.embedding_export",
        "visionloop.training.architectures",
        "visionloop.selection.accelerated",
    ),
    "engine": (LABEL_STUDIO, TELEMETRY),
    "gpu": (LABEL_STUDIO, TELEMETRY),
    "serve": (TELEMETRY,),
    "labelstudio": (TELEMETRY,),
    "demo": (TELEMETRY,),
}
BESIDE = {
    **dict.fromkeys(["", *STARTS], ()),
    "labelstudio": ("engine", "serve"),
    "demo": ("lake", "engine", "serve"),
}
BASE_ROOMS = ("cli", "cluster", "components", "pipelines", "runner")


def sources() -> dict[str, Path]:
    """Return each module of the package by its name."""
    folder = ROOT / "visionloop"
    linked = [path for room in BASE_ROOMS for path in (folder / room).glob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in [*folder.rglob("*.py"), *linked]
    }


def imported(path: Path, *, at_once: bool = False) -> set[str]:
    """Return the dotted names that a module imports, but for type checkers.

    Args:
        path: The module.
        at_once: Leave out what is only imported when a function is called.
    """
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)
    return found


def run_by(extra: str, modules: dict[str, Path]) -> set[str]:
    """Return the modules that an extra runs."""
    beyond = BEYOND.get(extra, ())
    within = tuple(f"{name}." for name in beyond)
    held = [name for name in modules if name not in beyond and not name.startswith(within)]
    return reached(STARTS[extra], {name: modules[name] for name in held})


def reached(starts: tuple[str, ...], modules: dict[str, Path]) -> set[str]:
    """Return the modules that some begin with, or import, and so on.

    A package that only holds what is imported counts with what it imports at once: its functions,
    `__getattr__` for example, are not called.
    """
    waiting = [(name, False) for name in modules if name.startswith(starts)]
    found: dict[str, bool] = {}
    while waiting:
        name, passing = waiting.pop()
        if name in found and found[name] <= passing:
            continue
        found[name] = passing
        for target in imported(modules[name], at_once=passing):
            parts = target.split(".")
            names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
            held = [inner for inner in names if inner in modules]
            waiting += [(inner, inner != held[-1]) for inner in held]
    return set(found)


def third_party(path: Path) -> set[str]:
    """Return the distributions that a module imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        top = ".".join(parts[:2]) if parts[0] in SPLIT else parts[0]
        if top not in sys.stdlib_module_names and top != "visionloop":
            found.add(DISTRIBUTIONS.get(top, top).lower().replace("_", "-"))
    return found


def declared() -> dict[str, set[str]]:
    """Return the modules' distributions of each extra; of the base install under an empty name."""
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = {"": parsed["options"]["install_requires"], **parsed["options.extras_require"]}

    def of(extra: str) -> set[str]:
        found = set()
        for line in lists[extra].splitlines():
            if inner := re.fullmatch(r"visionloop\[(.+)\]", line):
                found |= set().union(*map(of, inner[1].split(",")))
            elif line and not line.startswith("#"):
                name = re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower().replace("_", "-")
                # Two distributions of one module.
                found.add("onnxruntime" if name == "onnxruntime-gpu" else name)
        return found

    return {extra: of(extra) for extra in lists}


@pytest.mark.parametrize("extra", BESIDE)
def test_what_an_extra_runs_imports_only_what_it_declares(extra: str) -> None:
    modules, declares = sources(), declared()
    if extra:
        names = run_by(extra, modules)
    else:
        other = (TELEMETRY, "visionloop.lean", "visionloop.cli.select", "visionloop.cli.picks")
        names = {
            name
            for name in modules
            if (name.count(".") < 2 and modules[name].name != "__init__.py")
            or name.split(".")[1:2] in [[room] for room in BASE_ROOMS]
        } - set(other)
    allowed = declares[""] | declares[extra]
    for other_extra in BESIDE[extra]:
        allowed |= declares[other_extra]
    missing = {
        f"{name}: {distribution}"
        for name in names
        for distribution in third_party(modules[name])
        if distribution not in allowed
    }
    assert sorted(missing) == []


def test_no_extra_declares_what_nothing_of_it_imports() -> None:
    modules, declares = sources(), declared()
    for extra in STARTS:
        used = {d for name in run_by(extra, modules) for d in third_party(modules[name])}
        assert declares[extra] <= used, f"{extra}: {sorted(declares[extra] - used)}"


def test_every_module_is_run_by_some_extra() -> None:
    modules = sources()
    run = set().union(*(reached(starts, modules) for starts in STARTS.values()))
    left = {name for name in modules if name not in run and name.split(".")[1:2]}
    rooms = {name for name in left if name.count(".") >= 2 and name.split(".")[1] not in BASE_ROOMS}
    assert sorted(rooms) == []
