"""Where diversity is computed: `selection.device`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionloop.errors import InputError
from visionloop.selection import accelerated, engine, greedy
from visionloop.selection.accelerated import device_of
from visionloop.selection.config import SelectionConfig
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool, Reference


def made() -> tuple[Pool, Reference]:
    x = np.random.default_rng(0).normal(size=(300, 8))
    names = [f"{i:04d}" for i in range(300)]
    pool = Pool.build(names, embeddings={"e": x})
    return pool, Reference.build(names[:9], embeddings={"e": x[:9]})


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_selected() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    pool, labelled = made()
    with pytest.raises(InputError, match="finds 0 GPUs, and cuda:1 was asked for") as refused:
        select(pool, SelectionConfig(device="cuda:1"), 5, labelled=labelled)
    assert refused.value.where == "selection.device"


def test_auto_is_the_processor_where_no_gpu_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert device_of("") == device_of("auto") == ""
    monkeypatch.setattr(accelerated, "gpu_is_there", lambda: True)  # but PyTorch cannot use it
    assert device_of("auto") == ""


def test_a_name_that_is_no_device_is_refused() -> None:
    for wanted in ("gpu", "cuda:", "cuda:x", "cpu"):
        with pytest.raises(ValueError, match="device"):
            SelectionConfig(device=wanted)


def test_diversity_on_a_device_picks_what_it_picks_on_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    used: list[str] = []

    def noted(*given: Any, device: str, **named: Any) -> Any:
        used.append(device)
        return accelerated.device_greedy(*given, device=device, **named)

    pool, labelled = made()
    config = SelectionConfig(strategy="diversity", device="cuda")
    expected = select(pool, config.model_copy(update={"device": ""}), 40, labelled=labelled)
    monkeypatch.setattr(engine, "device_of", lambda wanted: {"cuda": "cpu"}[wanted])
    monkeypatch.setattr(greedy, "device_greedy", noted)
    found = select(pool, config, 40, labelled=labelled)
    assert used == ["cpu"] and found == expected
