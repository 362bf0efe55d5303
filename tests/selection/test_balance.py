"""Balances start from what is labelled."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import CLASSES, fill, label, put
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.selection.config import parse_selection_config
from visionloop.selection.custom import _as_texts
from visionloop.selection.engine import select
from visionloop.selection.material import read_material
from visionloop.selection.pool import Pool
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


def balance(target: dict[str, float], column: str = "weather", **more: Any) -> Any:
    line = {
        "input": {"type": "METADATA", "key": column},
        "strategy": {"type": "BALANCE", "target": target},
    }
    return parse_selection_config({"strategies": [line], "random_share": 0, **more})


def pool(metadata: dict[str, list[Any]], **more: Any) -> Pool:
    n = len(next(iter(metadata.values())))
    return Pool.build([f"{i:04d}" for i in range(n)], metadata=metadata, **more)


def test_a_balance_tells_long_numbers_apart() -> None:
    cameras = [1234567, 1234568, 1234569] * 10
    config = balance({"1234567": 0.5, "1234568": 0.5}, "camera")
    chosen = select(pool({"camera": cameras}), config, 10).sample_ids
    assert np.bincount([int(s) % 3 for s in chosen], minlength=3).tolist() == [5, 5, 0]
    assert len(set(_as_texts(np.array([0.1, 0.1 + 2**-50, 2e18, 1e-7, 3.0, np.nan])))) == 6


@pytest.mark.parametrize("dialect", ["visionloop", "lightly"])
def test_a_wanted_value_that_filters_used_up_does_not_end_an_unattended_round(dialect: str) -> None:
    weather = ["fog", "rain", "sun"] * 6
    flags = {"near_duplicate": [w == "fog" for w in weather]}
    config = balance({"fog": 0.5, "rain": 0.25}, dialect=dialect, exclude_flags=["near_duplicate"])
    found = select(pool({"weather": weather}, flags=flags), config, 8)
    chosen = [weather[int(s)] for s in found.sample_ids]
    assert (chosen.count("rain"), chosen.count("sun")) == (4, 4)
    assert found.flags == ("absent_balance_weather",)
    with pytest.raises(InputError, match="values that the pool does not have: snow"):
        select(pool({"weather": weather}), balance({"snow": 0.5}), 8)


def test_a_sample_of_a_pool_may_lack_a_wanted_value() -> None:
    part = replace(pool({"weather": ["rain", "sun"] * 6}), partial=True)
    found = select(part, balance({"fog": 0.5, "rain": 0.25}), 8)
    assert len(found.sample_ids) == 8 and "absent_balance_weather" in found.flags


@pytest.mark.parametrize("dialect", ["visionloop", "lightly"])
def test_a_time_is_wanted_as_a_plain_date_or_in_any_form_of_iso_8601(dialect: str) -> None:
    days = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)] * 6
    keys = ("2026-03-02", "2026-03-03T02:00:00+02:00", "2026-03-01 00:00:00+00:00")
    for wanted in (keys[:2], keys[1:]):
        config = balance(dict.fromkeys(wanted, 0.5), "date", dialect=dialect)
        chosen = [int(s) % 3 for s in select(pool({"date": days}), config, 8).sample_ids]
        left_out = 0 if wanted == keys[:2] else 1
        assert chosen.count(left_out) == 0 and chosen.count(2) == 4
    with pytest.raises(InputError, match="does not have: 2026-03-09 00:00:00"):
        select(pool({"date": days}), balance({"2026-03-09": 0.5}, "date"), 8)
    texts = [str(day.date()) for day in days]  # a column of text stays one
    found = select(pool({"date": texts}), balance({"2026-03-02": 1.0}, "date"), 6).sample_ids
    assert {int(s) % 3 for s in found} == {1}
