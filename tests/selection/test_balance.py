"""Balances start from what is labelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.selection.small_lake import CLASSES, fill, label, put
from visionloop.lake import Lake
from visionloop.selection.config import parse_selection_config
from visionloop.selection.material import read_material
from visionloop.selection.record import select_material


def test_a_balance_of_classes_counts_what_is_labelled(lake: Lake) -> None:
    names = fill(lake, holdout=0)
    put(
        lake,
        "experiments",
        [{"model_id": "m1", "state": "in_service", "arm": "loop", "classes": CLASSES}],
    )
    sure = np.eye(3)[np.arange(30) % 3]
    rows = [
        {"sample_id": name, "model_id": "m1", "probabilities": p.tolist()}
        for name, p in zip(names, sure, strict=True)
    ]
    put(lake, "predictions", rows)
    label(lake, names[:6])  # six cats
    line: dict[str, Any] = {
        "input": {"type": "PREDICTIONS"},
        "strategy": {"type": "BALANCE", "distribution": "UNIFORM"},
    }
    config = parse_selection_config({"strategies": [line], "random_share": 0})
    chosen = [names.index(s) for s in select_material(read_material(lake, config), 9).sample_ids]
    assert np.bincount([i % 3 for i in chosen], minlength=3).tolist() == [0, 5, 4]
