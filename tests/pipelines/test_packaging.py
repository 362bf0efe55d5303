"""What is installed is what is in the repository."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy: building leaves files behind."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("visionloop", "components", "pipelines"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    (source / "README.md").touch()
    program = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return zipfile.ZipFile(source / "dist" / answer.stdout.splitlines()[-1])


def test_components_and_pipelines_are_real_files_of_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for top in ("components", "pipelines"):
        for path in (ROOT / top).rglob("*.py"):
            assert f"visionloop/{path.relative_to(ROOT)}" in names
    for entry in wheel.infolist():
        # A symbolic link in an archive has this type in the upper bits of its attributes.
        assert (entry.external_attr >> 28) != 0o12, entry.filename
    assert not [name for name in names if name.startswith(("components/", "pipelines/", "tests/"))]


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    kept = {".py", ".typed", ".j2", ".jinja", ".html", ".css", ".js", ".yaml", ".json"}
    for path in (ROOT / "visionloop").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = str(path.relative_to(ROOT))
            assert path.suffix in kept, f"{relative}: add its kind to package_data in setup.cfg"
            assert relative in names, relative


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    parsed = configparser.ConfigParser()
    parsed.read_string(wheel.read(entry).decode())
    assert parsed["console_scripts"]["visionloop"] == "visionloop.cli:main"


def test_a_base_install_asks_for_no_heavy_package(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    base = {
        line.split("=")[0].split(">")[0].split("<")[0] for line in required if "extra" not in line
    }
    of_kfp = {"kfp", "kfp-kubernetes", "kfp-server-api", "kubernetes", "protobuf", "urllib3"}
    assert base == of_kfp | {"docstring-parser", "pydantic", "pyyaml", "rich"}
    assert "Requires-Python: <3.14,>=3.11" in lines
