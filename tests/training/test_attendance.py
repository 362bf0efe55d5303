"""A job that nobody waits for leaves a checkpoint and stops; one that is waited for goes on."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionloop.lake.storage import join, local_path, normalise
from visionloop.training import attendance
from visionloop.training.attendance import ATTENDANCE_FILE, Attendance, attending
from visionloop.training.parameters import TrainingConfig
from visionloop.training.plan import CHECKPOINT_FILE, Plan
from visionloop.training.trainer import Interrupted
from visionloop.training.training_set import TrainingSet
from visionloop.training.work import do


def planned(folder: Path, updates: int = 60) -> Plan:
    (folder / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, media = [], {}
    for number in range(8):
        path = folder / "photos" / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
        sample = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((sample, "cat" if number % 2 else "dog"))
        media[sample] = normalise(path)
    root = normalise(folder / "lake")
    plan = Plan(
        model_id="m0000-a",
        training_set=TrainingSet("loop", tuple(rows)),
        media=media,
        classes=["cat", "dog"],
        parameters=TrainingConfig(
            epochs=1, min_updates=updates, image_size=16, calibrate=False, runner="trainjob"
        ),
        round_id="0000",
        lake_version="v1",
        bundle=join(root, "trained", "m0000-a"),
        folder=join(root, "training", "loop", "m0000-a"),
    )
    plan.save()
    return plan


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "RENEWAL_SECONDS", 0.02)
    monkeypatch.setattr(attendance, "ALONE_SECONDS", 0.3)


def bundle(plan: Plan) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in local_path(plan.bundle).iterdir()
        if path.name != "card.json"
    }


def test_a_job_whose_task_is_gone_stops_and_the_next_one_goes_on_to_the_same_weights(
    tmp_path: Path, quick: None
) -> None:
    plan = planned(tmp_path / "left", updates=20_000)
    with attending(plan):
        pass
    with pytest.raises(Interrupted, match="asked to stop"):
        do(plan)
    assert plan.storage.exists(plan.path(CHECKPOINT_FILE))

    plan = planned(tmp_path / "short", updates=40)
    undisturbed = planned(tmp_path / "undisturbed", updates=40)
    plan.storage.write(plan.path(ATTENDANCE_FILE), f"{time.time() - 3600:.3f}\n".encode())
    # A pod that the job starts again knows at its first step.
    with pytest.raises(Interrupted, match="after step 1 of 40"):
        do(plan)
    for one in (plan, undisturbed):
        with attending(one):
            do(one)
    assert bundle(plan) == bundle(undisturbed)


def test_a_job_that_is_waited_for_goes_on(tmp_path: Path, quick: None) -> None:
    plan = planned(tmp_path)
    with attending(plan):
        seen = Attendance(plan)
        with seen.watched():
            time.sleep(1.0)
            assert not seen.over()


def test_a_lake_that_went_away_is_not_made_anew(
    tmp_path: Path, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tmp_path)
    (tmp_path / "lake").rename(tmp_path / "gone")
    with attending(plan):
        time.sleep(0.1)
    assert not (tmp_path / "lake").exists()
    assert "cannot say that the job is waited for" in capfd.readouterr().err
