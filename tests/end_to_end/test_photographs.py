"""A folder of real photographs through `visionloop run round`, with a configuration by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.lake import Lake

LOOP = """
name: clothing
lake: lake
sources:
  - uri: photos
holdout: {{fraction: 0.25}}
selection: {{n_samples: 15}}
labeling: {{provider: {provider}, labels: {labels}}}
training: {{epochs: 3, min_updates: 20}}
"""


@pytest.fixture
def photos(shared: Path, tmp_path: Path) -> Path:
    """Return a folder of 60 photographs of three kinds of clothing, and one broken file."""
    source = shared / "data" / "clothing"
    for kind in ("dress", "pants", "t-shirt"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for path in sorted((source / kind).iterdir())[:20]:
            (tmp_path / "photos" / kind / path.name).symlink_to(path)
    (tmp_path / "photos" / "dress" / "broken.jpg").write_bytes(path.read_bytes()[:3000])
    return tmp_path


def visionloop(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "visionloop", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_folder_of_photographs_goes_through_two_rounds(photos: Path) -> None:
    (photos / "loop.yaml").write_text(LOOP.format(provider="oracle", labels="folder"))
    for number in range(2):
        done = visionloop(photos, "run", "round", "--config", "loop.yaml", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["state"] == "succeeded"
        tasks = {task["name"]: task["outputs"] for task in told["tasks"]}
        assert tasks["select"]["n_selected"] == 15
        assert tasks["evaluate"]["accuracy"] >= 0
        if number == 0:
            assert tasks["ingest"]["n_new"] == 60
            assert tasks["ingest"]["n_unreadable"] == 1
            assert tasks["ingest"]["n_files"] == 61
            assert tasks["infer"]["model_id"] == ""
        else:
            assert tasks["ingest"]["n_new"] == 0
    lake = Lake.open(str(photos / "lake"), loop="clothing")
    picks = lake.read("selections").to_pylist()
    assert len({row["sample_id"] for row in picks}) == 30
    split = dict(
        zip(
            *(lake.read("samples")[name].to_pylist() for name in ("sample_id", "split")),
            strict=True,
        )
    )
    assert {split[row["sample_id"]] for row in picks} == {"pool"}
    assert [held.state for held in lake.rounds.all()] == ["done", "done"]
    experiments = lake.read("experiments").sort_by("round_id").to_pylist()
    assert experiments[0]["classes"] == ["dress", "pants", "t-shirt"]
    assert [row["n_labels"] for row in experiments] == [15, 30]
    assert json.loads(experiments[1]["metrics"])["accuracy"] >= 0


def test_a_round_waits_for_people_and_goes_on_when_their_file_is_filled(photos: Path) -> None:
    (photos / "loop.yaml").write_text(LOOP.format(provider="csv", labels="''"))
    first = visionloop(photos, "run", "round", "--config", "loop.yaml", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["state"] == "waiting"
    request = photos / "lake" / "label_requests" / "clothing-0000.csv"
    lines = request.read_text().splitlines()
    assert len(lines) > 16  # the picks, the holdout, the header
    filled = [lines[0]]
    for line in lines[1:]:
        sample_id, file, _, reason = line.split(",", 3)
        filled.append(f"{sample_id},{file},{Path(file).parent.name},{reason}")
    request.write_text("\n".join(filled) + "\n")
    second = visionloop(photos, "run", "round", "--config", "loop.yaml", "--json")
    assert second.returncode == 0, second.stderr
    told = json.loads(second.stdout)
    assert told["state"] == "succeeded"
    assert next(t for t in told["tasks"] if t["name"] == "publish")["outputs"]["published"]
    lake = Lake.open(str(photos / "lake"), loop="clothing")
    assert len(lake.rounds.all()) == 1


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (("uri: photos", "uri: fotos"), 2, r"fotos"),
        (("n_samples", "n_sample"), 2, r"did you mean `n_samples`"),
        (("provider: oracle", "provider: oracl"), 2, r"labeling.provider"),
    ],
)
def test_what_a_newcomer_gets_wrong_is_told_in_one_paragraph(
    photos: Path, change: tuple[str, str], status: int, says: str
) -> None:
    text = LOOP.format(provider="oracle", labels="folder")
    (photos / "loop.yaml").write_text(text.replace(*change))
    done = visionloop(photos, "run", "round", "--config", "loop.yaml")
    assert done.returncode == status
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and says in last
    assert "Traceback" not in done.stderr
