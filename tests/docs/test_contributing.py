"""The page on adding a stage is followed, in a copy of the repository, to the letter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
COPIED = ("visionloop", "components", "pipelines", "docs", "tests")
FILES = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE")


def files_of_the_page() -> dict[str, str]:
    """Return the text of each file that the page shows, by its path."""
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    return dict(blocks)


def python(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the page's stage in it, and a lake with nine labels."""
    copy = tmp_path_factory.mktemp("repository")
    leave = shutil.ignore_patterns("__pycache__", "data", "*.pyc")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=leave)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    for name, text in files_of_the_page().items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    for name in ("components", "pipelines"):
        registry = copy / name / "registry.py"
        text = registry.read_text(encoding="utf-8")
        registry.write_text(
            re.sub(r"^NAMES = \(", 'NAMES = ("balance", ', text, flags=re.M), encoding="utf-8"
        )
    random = np.random.default_rng(0)
    for number in range(9):
        kind = copy / "photos" / ("dark" if number % 3 else "light")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    (copy / "loop.yaml").write_text(
        "lake: lake\nsources: [{uri: photos, labels: folder}]\n", encoding="utf-8"
    )
    return copy


def test_the_page_shows_every_file_of_a_stage() -> None:
    assert list(files_of_the_page()) == [
        "visionloop/stages/balance.py",
        "components/balance/component.py",
        "components/balance/__init__.py",
        "pipelines/balance.py",
    ]


def test_the_stage_of_the_page_runs_in_its_pipeline(repository: Path) -> None:
    taken_in = python(repository, "-m", "visionloop", "ingest", "--config", "loop.yaml")
    assert taken_in.returncode == 0, taken_in.stderr
    command = ("-m", "visionloop", "run", "balance", "--config", "loop.yaml", "--json")
    done = python(repository, *command)
    assert done.returncode == 0, done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["outputs"] == {"n_classes": 2, "n_labels": 9}
    (page,) = repository.glob("local_outputs/runs/*-balance/**/page")
    assert "| dark | 6 |" in page.read_text(encoding="utf-8")


def test_the_stage_of_the_page_is_compiled_and_gets_its_page(repository: Path) -> None:
    made = python(repository, "-m", "visionloop.pipelines.generated")
    assert made.returncode == 0, made.stderr
    for name in ("component.yaml", "README.md"):
        assert (repository / "components" / "balance" / name).stat().st_size > 300
    assert "balance" in (repository / "pipelines" / "balance.yaml").read_text(encoding="utf-8")


def test_the_stage_of_the_page_keeps_the_rules(repository: Path) -> None:
    (repository / "visionloop" / "py.typed").touch()
    checked = python(
        repository,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "tests/pipelines/test_components.py",
        "-k",
        "balance",
    )
    assert checked.returncode == 0, checked.stdout
    assert re.search(r"[5-9]\d* passed", checked.stdout), checked.stdout
    shown = [str(repository / name) for name in files_of_the_page()]
    for command in (["check"], ["format", "--check"]):
        linted = python(repository, "-m", "ruff", *command, *shown)
        assert linted.returncode == 0, linted.stdout
