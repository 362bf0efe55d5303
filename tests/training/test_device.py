"""Where a training runs: never in silence on the CPU of a machine that was given a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visionloop.errors import InputError, VisionloopError
from visionloop.inference import session
from visionloop.training import determinism
from visionloop.training.determinism import choose_device

# As the driver writes it; the second line names the compiler.
OLD_DRIVER = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
    "GCC version:  gcc version 12.2.0\n"
)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use a GPU here")


@pytest.fixture
def old_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU's device, and a driver that is too old."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for module, name, content in ((session, "_NVIDIA", ""), (determinism, "_DRIVER", OLD_DRIVER)):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        monkeypatch.setattr(module, name, path)


@without_gpu
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_that_pytorch_cannot_use_stops_the_training_and_names_the_driver(
    wanted: str, old_driver: None
) -> None:
    with pytest.raises(VisionloopError, match="there is a GPU, and PyTorch cannot use it") as told:
        choose_device(wanted)
    assert "driver 535.129.03" in told.value.where
    assert "training.device: cpu" in told.value.remedy


@without_gpu
def test_who_wants_the_cpu_or_hides_the_gpu_gets_the_cpu(
    old_driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_device("auto") == "cpu"


@without_gpu
def test_without_a_device_auto_is_the_cpu_and_cuda_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_NVIDIA", str(tmp_path / "nothing"))
    assert choose_device("auto") == "cpu"
    with pytest.raises(InputError, match="PyTorch sees no GPU"):
        choose_device("cuda")
