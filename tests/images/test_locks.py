"""The locks name what setup.cfg asks for, and nothing can be installed in its place."""

from __future__ import annotations

import configparser
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.locks import ROOT, environment_of, read_lock

LOCKS = {"gpu": ("engine", "serve"), "cpu": ("lake", "serve")}
STALE = "make locks"


def asked_for(extras: tuple[str, ...]) -> list[Requirement]:
    """Return what setup.cfg asks for, of the base install and some extras."""
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg", encoding="utf-8")
    waiting, lines = list(extras), parsed["options"]["install_requires"].splitlines()
    while waiting:
        for line in parsed["options.extras_require"][waiting.pop()].splitlines():
            inner = re.fullmatch(r"visionloop\[(.+)\]", line)
            if inner:
                waiting += inner[1].split(",")
            else:
                lines.append(line)
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_setup_cfg_asks_for(lock: str, python: str) -> None:
    environment = environment_of(python)
    locked = {one.name: one.version for one in read_lock(lock) if one.holds_in(environment)}
    for asked in asked_for(LOCKS[lock]):
        name = canonicalize_name(asked.name)
        assert name in locked, f"{asked} is not in requirements/{lock}.txt: run `{STALE}`"
        assert locked[name] in asked.specifier, f"{name} {locked[name]} is not {asked}: `{STALE}`"


def test_what_builds_the_package_is_locked() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = {one.name: one.version for one in read_lock("build")}
    for line in declared["build-system"]["requires"]:
        asked = Requirement(line)
        assert locked[asked.name] in asked.specifier, f"`{STALE}`"


def test_the_small_image_has_the_packages_of_the_large_one_without_pytorch() -> None:
    def entries(lock: str) -> set[str]:
        return {f"{one.requirement} {one.hashes}" for one in read_lock(lock)}

    assert entries("build") <= entries("cpu") < entries("gpu"), f"`{STALE}`"
    only_large = {one.name for one in read_lock("gpu")} - {one.name for one in read_lock("cpu")}
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13"} <= only_large
    assert not {one.name for one in read_lock("cpu") if one.name.startswith(("nvidia", "cuda"))}


@pytest.mark.parametrize("lock", [*LOCKS, "build"])
def test_every_file_is_known_by_its_hash_and_no_index_is_named(lock: str) -> None:
    entries = read_lock(lock)
    for one in entries:
        assert one.hashes, one.name
        assert one.requirement.url is None, one.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in one.hashes)
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    assert "://" not in text and "index" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
