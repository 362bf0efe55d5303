"""Several processes that share each batch, as on the GPUs of one pod: here by Gloo, on the CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.small_loop import SmallLoop
from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage import local_path
from visionloop.stages.train import train
from visionloop.training import launch
from visionloop.training.parameters import TrainingConfig
from visionloop.training.processes import processes_here
from visionloop.training.worker import INTERRUPTED, UNEXPECTED

pytestmark = pytest.mark.slow


def labelled(folder: Path, n: int = 41, **training: Any) -> SmallLoop:
    folder.mkdir(exist_ok=True)
    loop = SmallLoop(folder, training={"processes": 2} | training)
    loop.label(loop.split("pool")[:n])
    return loop


def bundle(loop: SmallLoop) -> dict[str, bytes]:
    """Return the files of the only model, but the card, which has a time."""
    (row,) = loop.lake.read("experiments").to_pylist()
    folder = local_path(row["uri"])
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "card.json"}


def probabilities(loop: SmallLoop) -> Any:
    (row,) = loop.lake.read("experiments").to_pylist()
    with np.load(local_path(row["uri"]) / "reference.npz") as held:
        return held["probabilities"]


def in_rank_1(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second process do something else at its third step."""
    (folder / "sitecustomize.py").write_text(f"""
import os
if os.environ.get("RANK") == "1":
    import signal
    from visionloop.errors import VisionloopError
    from visionloop.training import fitting
    step = fitting.Fit.step
    def other(self, *, stop=False):
        if self.at.done == 2:
            {what}
        return step(self, stop=stop)
    fitting.Fit.step = other
""")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_two_processes_train_the_model_of_one_up_to_rounding(tmp_path: Path) -> None:
    # A network without dropout, whose batch normalisation would differ with half of each batch.
    steps = {"architecture": "resnet18", "min_updates": 4, "batch_size": 16, "learning_rate": 1e-3}
    found = []
    for name, processes, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 1)):
        loop = labelled(tmp_path / name, processes=processes, seed=seed, **steps)
        train(config=loop.config, round_id="0000")
        found.append(probabilities(loop))
    difference = np.abs(found[0] - found[1]).max()
    # Measured: 2e-5; .06 where each process normalises its half of a batch by itself.
    assert difference < 5e-4 < 0.05 < np.abs(found[0] - found[2]).max()


def test_interrupted_and_taken_up_again_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    steps = {"min_updates": 100, "checkpoint_steps": 10}
    whole = labelled(tmp_path / "whole", **steps)
    train(config=whole.config, round_id="0000")
    loop = labelled(tmp_path / "loop", **steps)
    for number, status in ((signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)):
        known = _checkpoint(loop)
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.training.interrupted", loop.config],
            stderr=subprocess.PIPE,
            text=True,
        )
        while _checkpoint(loop) == known:
            assert child.poll() is None, child.communicate()
            time.sleep(0.02)
        child.send_signal(number)
        told = child.communicate(timeout=60)[1]
        assert child.returncode == status, told
        if number == signal.SIGTERM:
            assert "the training in 2 processes was asked to stop" in told
    train(config=loop.config, round_id="0000")
    assert bundle(loop) == bundle(whole)


def _checkpoint(loop: SmallLoop) -> int:
    found = list((loop.folder / "lake" / "training").rglob("checkpoint.pt"))
    return found[0].stat().st_mtime_ns if found else 0


def test_a_process_that_was_killed_is_named_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = labelled(tmp_path)
    in_rank_1(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    with pytest.raises(VisionloopError, match="process 1 of the training was killed by SIGKILL"):
        train(config=loop.config, round_id="0000")
    assert loop.lake.read("experiments").num_rows == 0


def test_the_error_of_one_process_is_the_error_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loop = labelled(tmp_path)
    raised = "raise VisionloopError('the disk is gone', where='here', remedy='Bring it back')"
    in_rank_1(tmp_path, raised, monkeypatch)
    with pytest.raises(VisionloopError) as caught:
        train(config=loop.config, round_id="0000")
    assert (caught.value.what, caught.value.remedy) == ("the disk is gone", "Bring it back")
    # The log of a process that is not the first one's is shown when it fails.
    assert "[process 1] the disk is gone (here). Bring it back." in capfd.readouterr().err


def test_a_process_that_was_stopped_is_not_the_cause_of_another_ones_error() -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    def failure(rank: int, status: int) -> ProcessFailure:
        return ProcessFailure(rank, pid=rank, exitcode=status, error_file="")

    for stopped in (-signal.SIGTERM, INTERRUPTED, UNEXPECTED):
        both = {0: failure(0, stopped), 1: failure(1, 1)}
        assert launch._cause(both)[0] == 1, stopped
    assert launch._cause({0: failure(0, 1), 1: failure(1, -signal.SIGKILL)})[0] == 1


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path: Path) -> None:
    loop = labelled(tmp_path, n=8, processes=3, batch_size=2)
    with pytest.raises(InputError, match="3 processes cannot share batches of 2 images"):
        train(config=loop.config, round_id="0000")


def test_a_pod_trains_in_one_process_a_gpu_and_in_one_without() -> None:
    import torch

    count = torch.cuda.device_count()
    assert processes_here(TrainingConfig()) == max(1, count)
    assert processes_here(TrainingConfig(device="cpu")) == 1
    assert processes_here(TrainingConfig(processes=3)) == 3


@pytest.mark.gpu
def test_every_gpu_of_the_pod_takes_part(tmp_path: Path) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip(f"{torch.cuda.device_count()} GPUs here; NCCL between two needs two")
    loop = labelled(tmp_path, processes=0, device="cuda")
    train(config=loop.config, round_id="0000")
    (row,) = loop.lake.read("experiments").to_pylist()
    assert '"device": "cuda"' in row["metrics"]
