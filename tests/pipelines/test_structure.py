"""The architecture's arrows and single places, held."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.components import registry

ROOT = Path(__file__).resolve().parents[2]
# What a process of a stage may not pay for unless the stage is the one that needs it.
HEAVY = ("torch", "torchvision", "kserve", "sklearn", "pyiceberg", "cv2", "kfp", "pandas")


def modules() -> list[Path]:
    folders = [ROOT / "visionloop", ROOT / "components", ROOT / "pipelines"]
    return sorted({p.resolve() for f in folders for p in f.rglob("*.py")})


def test_imports_point_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("stage", registry.NAMES)
def test_a_stages_module_imports_nothing_heavy(stage: str) -> None:
    program = (
        "import sys, json, importlib\n"
        f"importlib.import_module('visionloop.stages.{stage}')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert not loaded & set(HEAVY)


def test_environment_variables_are_touched_in_one_place() -> None:
    found = []
    for path in modules():
        if path.name == "environment.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_no_module_is_named_for_a_layer() -> None:
    vague = {"utils", "helpers", "common", "base", "misc"}
    assert [p.name for p in modules() if p.stem in vague] == []


def test_no_module_is_over_400_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in modules()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
