"""Commands that need a lake in a cluster say how to run them there, and run there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.cli import main
from visionloop.errors import VisionloopError
from visionloop.lake import Lake

COMMANDS = [["rollback"], ["watch", "--dry-run"], ["report"], ["harvest"], ["lake", "status"]]
REMEDY = "kubectl exec -i deployment/visionloop-client -- visionloop"


@pytest.fixture(autouse=True)
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISIONLOOP_CATALOG", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "lake: /mnt/of-pods/lake\ncluster: {volume: 'photos:/mnt/of-pods'}\n",
            "on the volume photos, which pods mount",
        ),
        ("lake: gs://bucket/lake\n", "needs a catalog"),
        # A name longer than one can be: no resolver is asked.
        (
            f"lake: gs://bucket/lake\ncatalog: postgresql://u@{'x' * 64}/lake\n",
            "the catalog's host is not known here",
        ),
    ],
)
def test_a_lake_out_of_reach_names_the_client_pod(
    command: list[str],
    text: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "loop.yaml").write_text(f"{text}sources: [{{uri: photos}}]\n", encoding="utf-8")
    assert main([*command, "--config", str(tmp_path / "loop.yaml")]) in (1, 2)
    told = capsys.readouterr().err
    assert words in told and REMEDY in told


def test_a_configuration_through_a_pipe_is_read_and_its_paths_are_of_the_working_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "photos").mkdir()
    command = [sys.executable, "-m", "visionloop", "watch", "--dry-run", "--config", "/dev/stdin"]
    answer = subprocess.run(
        command,
        input="lake: lake\nsources: [{uri: photos}]\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "A dry run" in answer.stdout


def test_a_host_that_is_not_known_names_the_client_pod_whoever_asks() -> None:
    with pytest.raises(VisionloopError, match="could not translate host name") as caught:
        Lake.loops("gs://bucket/lake", catalog=f"postgresql://u@{'x' * 64}/lake")
    assert REMEDY in caught.value.remedy


def test_a_base_install_is_one_line_and_its_commands_name_the_smallest_extra(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('torch', 'torchvision', 'pyiceberg', 'pyarrow', 'numpy', 'onnxruntime',"
        " 'PIL', 'kserve', 'sklearn', 'orjson', 'sqlalchemy'): sys.modules[name] = None\n",
        encoding="utf-8",
    )
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "catalog.sqlite").touch()
    (tmp_path / "loop.yaml").write_text("lake: lake\n", encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    told = run("-m", "visionloop", "doctor").stdout
    assert "✓ packages: lake, engine, serve, demo: not installed" in told
    assert told.count("not installed") == 1
    for command in (["rollback"], ["watch", "--dry-run"]):
        answer = run("-m", "visionloop", *command, "--config", "loop.yaml")
        assert answer.returncode == 1
        assert "pip install 'visionloop[lake]'" in answer.stderr and ".py" not in answer.stderr
    # The doctor's check of the rollout asks this one.
    assert run("-c", "import visionloop.serving.inference_service.modes").returncode == 0
