"""The locks name what setup.cfg asks for, and nothing can be installed in its place."""

from __future__ import annotations

import configparser
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.locks import ROOT, environment_of, read_lock

LOCKS = {
    "gpu": ("gpu", "labelstudio", "otel"),
    "cpu": ("lake", "serve", "labelstudio", "otel"),
    "shared": ("stages", "serving", "labelstudio", "otel"),
}
BUILDS = {"onnxruntime", "onnxruntime-gpu"}
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
        if asked.marker and not asked.marker.evaluate(environment):
            continue
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

    shared = entries("shared")
    assert entries("build") <= shared and shared < entries("cpu") and shared < entries("gpu"), STALE
    names = {lock: {one.name for one in read_lock(lock)} for lock in LOCKS}
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13"} <= names["gpu"] - names["cpu"]
    # What the two images do not share, of the small one.
    assert names["cpu"] - names["shared"] == {"onnxruntime", "flatbuffers"}
    assert not {name for name in names["cpu"] if name.startswith(("nvidia", "cuda"))}


@pytest.mark.parametrize(("machine", "on_gpu"), [("x86_64", True), ("aarch64", False)])
def test_an_image_holds_one_build_of_onnx_runtime_and_both_images_one_version(
    machine: str, on_gpu: bool
) -> None:
    environment = environment_of("3.12") | {"platform_machine": machine}

    def builds(lock: str) -> dict[str, str]:
        held = [one for one in read_lock(lock) if one.name in BUILDS and one.holds_in(environment)]
        return {one.name: str(one.version) for one in held}

    assert builds("shared") == {}
    (version,) = builds("cpu").values()
    assert builds("cpu") == {"onnxruntime": version}
    expected = "onnxruntime-gpu" if on_gpu else "onnxruntime"
    assert builds("gpu") == {expected: version}, f"`{STALE}`"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_large_image_holds_each_library_that_onnx_runtime_loads_for_cuda(python: str) -> None:
    # As its extras `cuda` and `cudnn` name them, and cuBLAS, which cuDNN brings.
    environment = environment_of(python)
    locked = {one.name: one.version for one in read_lock("gpu") if one.holds_in(environment)}
    majors = {
        "nvidia-cublas": 13,
        "nvidia-cuda-nvrtc": 13,
        "nvidia-cuda-runtime": 13,
        "nvidia-cudnn-cu13": 9,
        "nvidia-cufft": 12,
        "nvidia-curand": 10,
    }
    assert {name: locked[name].major for name in majors} == majors
    # The same ones serve PyTorch in the same process.
    assert locked["cuda-toolkit"].major == 13


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
