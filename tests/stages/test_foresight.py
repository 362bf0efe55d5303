"""A training that could never begin is refused by the first task, which has no accelerator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.small_loop import SmallLoop
from visionloop.errors import InputError
from visionloop.stages.ingest import ingest

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    return SmallLoop(tmp_path_factory.mktemp("foresight"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param(
            {"architecture": "resnet81"}, "no network is called 'resnet81'", marks=needs_torchvision
        ),
        ({"weights": "torchvision"}, "small_cnn has no published weights"),
        ({"weights": "gone.pt"}, "the weights that training.weights names cannot be read"),
    ],
)
def test_a_round_that_could_never_train_is_not_opened(
    loop: SmallLoop, wrong: dict[str, Any], told: str, tmp_path: Path
) -> None:
    config = loop.changed("training", **wrong).replace("gone.pt", str(tmp_path / "gone.pt"))
    before = loop.lake.rounds.current()
    with pytest.raises(InputError, match=told):
        ingest(config=config, run_id="another", open_round=True, take_over=True)
    assert loop.lake.rounds.current() == before
    # What only brings images in does not train.
    assert ingest(config=config, round_id="0000").n_files == 120


def test_a_shard_whose_weights_cannot_be_read_is_never_listed(
    loop: SmallLoop, tmp_path: Path
) -> None:
    wrong = {
        "cluster": {"inline_samples": 10},
        "embedding": {"weights": str(tmp_path / "gone.onnx")},
    }
    config = json.dumps(loop.settings | wrong)
    with pytest.raises(InputError, match=r"embedding\.weights names cannot be read"):
        ingest(config=config, round_id="0000", fan_out=True)
