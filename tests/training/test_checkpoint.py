"""A training that is killed and run again gives the bytes of one that was left alone."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.interrupted import run_train
from tests.training.small_loop import SmallLoop
from visionloop.lake.storage import local_path
from visionloop.stages.train import train
from visionloop.training import work
from visionloop.training.checkpoint import Checkpoints, identity_of, state_of
from visionloop.training.parameters import TrainingConfig
from visionloop.training.plan import Plan, Result
from visionloop.training.training_set import TrainingSet

N_LABELS = 60
# Two fits of 30 steps each: one for the temperature, one on every label.
STEPS = {"min_updates": 30, "calibrate": True, "checkpoint_steps": 7}


def labelled(folder: Path, **training: Any) -> SmallLoop:
    folder.mkdir(exist_ok=True)
    loop = SmallLoop(folder, training=STEPS | training)
    loop.label(loop.split("pool")[:N_LABELS])
    return loop


def outcome(loop: SmallLoop, model_id: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the bundle's files but the card, which has a time, and what was measured."""
    row = loop.experiment(model_id)
    measured = json.loads(row["metrics"])["training"]
    measured.pop("seconds")
    folder = local_path(row["uri"])
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "card.json"}
    return files, measured


def kept(loop: SmallLoop) -> list[Path]:
    return sorted(p for p in (loop.folder / "lake" / "training").rglob("*") if p.is_file())


def checkpoint(loop: SmallLoop) -> Path:
    (found,) = [path for path in kept(loop) if path.name == "checkpoint.pt"]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    loop = labelled(tmp_path_factory.mktemp("undisturbed"), checkpoint_steps=0)
    return outcome(loop, train(config=loop.config, round_id="0000").model_id)


@pytest.mark.parametrize("at", [17, 52])
def test_killed_in_either_fit_and_run_again_it_gives_the_same_bytes(
    tmp_path: Path, undisturbed: tuple[Any, Any], at: int
) -> None:
    loop = labelled(tmp_path)
    assert run_train(loop.config, at, "SIGKILL").returncode == -signal.SIGKILL
    assert loop.lake.read("experiments").num_rows == 0
    again = run_train(loop.config)
    assert again.returncode == 0, again.stderr
    assert f"goes on after step {(at - 1) // 7 * 7} of 60" in again.stderr
    (row,) = loop.lake.read("experiments").to_pylist()
    assert outcome(loop, row["model_id"]) == undisturbed
    assert kept(loop) == []


def test_killed_again_and_again_it_still_gives_the_same_bytes(
    tmp_path: Path, undisturbed: tuple[Any, Any]
) -> None:
    loop = labelled(tmp_path, checkpoint_steps=20)
    kills = 0
    while run_train(loop.config, 25, "SIGKILL").returncode:
        kills += 1
        assert kills < 9
    # Each try gets 20 steps further, and the third has no 25 before it.
    assert kills == 2
    (row,) = loop.lake.read("experiments").to_pylist()
    assert outcome(loop, row["model_id"]) == undisturbed


def test_a_node_that_gives_notice_gets_a_checkpoint_at_once(
    tmp_path: Path, undisturbed: tuple[Any, Any]
) -> None:
    loop = labelled(tmp_path, checkpoint_steps=1000)
    told = run_train(loop.config, 40, "SIGTERM")
    # It ends the step that it is in.
    assert told.returncode == 1
    assert "was asked to stop, after step 41 of 60" in told.stderr
    again = run_train(loop.config)
    assert "goes on after step 41 of 60" in again.stderr
    (row,) = loop.lake.read("experiments").to_pylist()
    assert outcome(loop, row["model_id"]) == undisturbed


def test_without_checkpoints_nothing_is_kept_and_sigterm_ends_it(tmp_path: Path) -> None:
    loop = labelled(tmp_path, checkpoint_steps=0)
    assert run_train(loop.config, 40, "SIGTERM").returncode == -signal.SIGTERM
    assert "checkpoint.pt" not in {path.name for path in kept(loop)}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "is torn: its bytes"),
        (lambda data: data[: data.index(b"}")], "is torn: its header"),
        (lambda data: data[:-50] + b"x" + data[-49:], "is torn: its bytes"),
        (lambda data: b"PK" + data, "is none of this version"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_ignored(
    tmp_path: Path, undisturbed: tuple[Any, Any], damage: Any, said: str
) -> None:
    loop = labelled(tmp_path)
    run_train(loop.config, 17, "SIGKILL")
    path = checkpoint(loop)
    path.write_bytes(damage(path.read_bytes()))
    again = run_train(loop.config)
    assert f"begins anew: the checkpoint {path.as_uri()} {said}" in again.stderr
    (row,) = loop.lake.read("experiments").to_pylist()
    assert outcome(loop, row["model_id"]) == undisturbed


def test_another_training_never_goes_on_from_it(tmp_path: Path) -> None:
    loop = labelled(tmp_path)
    run_train(loop.config, 17, "SIGKILL")
    path = checkpoint(loop)
    other = loop.changed("training", learning_rate=0.001)
    assert "goes on" not in run_train(other, 5, "SIGKILL").stderr
    # Not even where it lies in the other one's place.
    (folder,) = [p.parent for p in kept(loop) if p.name == "plan.json" and p.parent != path.parent]
    (folder / path.name).write_bytes(path.read_bytes())
    told = run_train(other)
    assert "is of another training" in told.stderr and "goes on" not in told.stderr
    assert path.exists()


def test_a_write_that_is_killed_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    from visionloop.lake.storage import FileStorage

    class Full(FileStorage):
        def write(self, uri: str, data: bytes) -> None:
            super().write(uri + ".part", data[: len(data) // 2])
            raise OSError("killed")

    import torch

    uri = str(tmp_path / "checkpoint.pt")
    state = {"step": 3, "order": torch.arange(4)}
    Checkpoints(FileStorage(), uri, identity_of("a"), 1).save(state)
    failing = Checkpoints(Full(), uri, identity_of("a"), 1)
    with pytest.raises(OSError):
        failing.save({"step": 4, "order": torch.arange(5)})
    content = failing.read()
    assert content is not None and state_of(content)["step"] == 3


def test_a_model_that_was_stored_is_recorded_without_training_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = labelled(tmp_path, checkpoint_steps=0)
    script = """
import os, sys
from visionloop.lake import run
run.Run.commit = lambda self, **given: os.kill(os.getpid(), 9)
from visionloop.stages.train import train
train(config=sys.argv[1], round_id="0000")
"""
    killed = subprocess.run([sys.executable, "-c", script, loop.config], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert "result.json" in {path.name for path in kept(loop)}

    def never(*args: Any, **given: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(work, "train_network", never)
        trained = train(config=loop.config, round_id="0000")
    assert loop.experiment(trained.model_id)["n_labels"] == N_LABELS
    assert kept(loop) == []


def test_a_result_whose_model_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    loop = labelled(tmp_path, checkpoint_steps=0)
    first = train(config=loop.config, round_id="0000")
    folder = loop.lake.path("training", "small", first.model_id)
    held = Plan(
        first.model_id, TrainingSet("loop", ()), {}, [], TrainingConfig(), "0000", "",
        loop.experiment(first.model_id)["uri"], folder,
    )  # fmt: skip
    card = local_path(held.bundle) / "card.json"
    digest = hashlib.sha256(card.read_bytes()).hexdigest()
    Result(digest, "d", [], {"loss": 1.0}, "2026-11-22T00:00:00+00:00").save(held)
    assert Result.load(held) is not None
    card.write_bytes(card.read_bytes() + b" ")
    assert Result.load(held) is None
    card.unlink()
    assert Result.load(held) is None
