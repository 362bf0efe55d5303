"""What the page about clusters tells a person to type is what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

from visionloop.cli.parser import Parser
from visionloop.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)


def commands() -> list[str]:
    lines = "\n".join(text for language, text in BLOCKS if not language)
    inline = re.findall(r"`((?:visionloop|kubectl|make) [^`]+)`", PAGE)
    return [line.strip() for line in lines.replace("\\\n", " ").splitlines()] + inline


OURS = sorted({line for line in commands() if line.startswith("visionloop ")})


@pytest.mark.parametrize("line", OURS)
def test_every_command_of_ours_is_read_by_its_parser(line: str) -> None:
    # NAMESPACE stands for one of the reader's: no namespace is written in capitals.
    name, *arguments = shlex.split(line.replace("NAMESPACE", "team-a"))[1:]
    parser = Parser(prog=name)
    importlib.import_module(f"visionloop.cli.{name}").add_arguments(parser)
    if arguments and not (name == "rollback" and "--config" not in arguments):
        parser.parse_args(arguments)


def test_the_page_names_the_commands_that_a_cluster_needs() -> None:
    assert {line.split()[1] for line in OURS} >= {"doctor", "submit", "schedule", "rollback"}


def test_every_path_and_make_target_is_there() -> None:
    lines = commands()
    paths = {
        path for line in lines for path in re.findall(r"-k (manifests/\S+?)[,`)]?(?:\s|$)", line)
    }
    assert {"manifests/overlays/gke", "manifests/overlays/local"} <= paths
    assert [path for path in paths if not (ROOT / path / "kustomization.yaml").is_file()] == []
    named = set(re.findall(r"(?<!pipelines/)manifests/[\w/.-]+\w", PAGE)) | set(
        re.findall(r"components/\w+", PAGE)
    )
    lost = [
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "manifests" / name).exists()
    ]
    assert lost == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= set(targets)


def test_the_names_of_objects_are_those_of_the_manifests() -> None:
    manifests = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "manifests").rglob("*.yaml")
    )
    # A Google account's name has the project behind it, and $account stands for three.
    named = set(re.findall(r"\bvisionloop-[a-z-]*[a-z]\b", PAGE))
    assert {name for name in named if name not in manifests} == set()
    assert {"visionloop-runner", "visionloop-collector", "visionloop-postgres"} <= named


def test_the_loop_is_a_valid_one() -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    loop = load_config(text)
    assert loop.serving.kserve is not None and loop.cluster.tolerations
    short = re.search(r"On kind: `lake: (\S+)`, `cluster: (\{.*?\})`", PAGE)
    assert short is not None
    local = load_config(
        yaml.safe_dump({"lake": short[1], "cluster": yaml.safe_load(short[2])}, sort_keys=False)
    )
    assert local.lake.startswith(f"file://{local.cluster.mount_path}/")


def test_the_python_names_what_the_package_has_and_takes() -> None:
    (text,) = [text for language, text in BLOCKS if language == "python"]
    from visionloop.submission import Server

    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    seen = set()
    for call in calls:
        function = call.func
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) in (
            "server",
            "Server",
        ):
            method = getattr(Server, function.attr)
            bound = inspect.signature(method)
            instance = [] if inspect.ismethod(method) else [None]
            bound.bind(*instance, *call.args, **{str(k.arg): k.value for k in call.keywords})
            seen.add(function.attr)
    assert seen == {"connect", "submit", "follow", "reasons"}
