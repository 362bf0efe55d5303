"""The tutorial, command by command, as a newcomer types it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.lake import Lake

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
KINDS, PHOTOS_A_KIND = ("dress", "hat", "pants", "shoes"), 14


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def project(shared: Path, tmp_path: Path) -> Path:
    """A folder with some of the photographs in `photos/`, one of them broken."""
    for kind in KINDS:
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for path in sorted((shared / "data" / "clothing" / kind).iterdir())[:PHOTOS_A_KIND]:
            (tmp_path / "photos" / kind / path.name).symlink_to(path)
    broken = tmp_path / "photos" / KINDS[0] / "zz-broken.jpg"
    broken.write_bytes(path.read_bytes()[:3000])
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute on a quiet machine; five where six others work
def test_every_command_of_the_tutorial_works_and_makes_three_rounds(project: Path) -> None:
    said = []
    for block in blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=project,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    told = "\n".join(said)
    assert "56 images, 1 unreadable (truncated 1)" in told
    assert told.count("round: waits for labels") == 1
    assert told.count("round: done") == 3

    lake = Lake.open(str(project / "lake"), loop="clothing")
    assert [held.state for held in lake.rounds.all()] == ["done"] * 3
    models = lake.read("experiments").sort_by("round_id").to_pylist()
    # Two a class were known; some of these are in the holdout.
    n_labels = [row["n_labels"] for row in models]
    assert n_labels[0] >= 8 and [n - n_labels[0] for n in n_labels] == [0, 8, 16]
    assert models[0]["classes"] == list(KINDS)
    origins = set(lake.read("labels", columns=["origin"])["origin"].to_pylist())
    assert "oracle" not in origins
    assert (project / "report.html").stat().st_size > 10_000


def test_the_tutorial_goes_from_init_through_rounds_to_a_report() -> None:
    commands = re.findall(r"^visionloop (\w+(?: round)?)", "\n".join(blocks()), re.M)
    assert commands == ["init", *["run round"] * 4, "report", "select"]
