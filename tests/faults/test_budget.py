"""A budget that is larger than the pool: a person is told, an unattended round takes the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.faults.conftest import SmallLoop, doubled
from visionloop.stages.select import select
from visionloop.stages.train import train

Command = Callable[..., tuple[int, str, str]]


def test_a_person_is_told_what_is_left_after_each_filter(loop: SmallLoop, command: Command) -> None:
    loop.take_in()
    loop.label()
    samples = loop.lake.read("samples")["split"].to_pylist()
    pool = samples.count("pool")
    before = loop.lake.version()
    status, out, err = command("select", "--config", loop.config, "-n", "1000")
    assert status == 2 and not out
    assert "1000" in err and f"{pool} in the pool" in err
    assert re.search(rf"{pool - 8} without 8 (labelled|selected) already", err)
    assert loop.lake.version() == before

    status, out, _ = command("select", "--config", loop.config, "-n", "3", "--json")
    assert status == 0 and json.loads(out)["n_selected"] == 3


@pytest.mark.parametrize("setting", [{"n_samples": 1000}, {"proportion_samples": 1.0}])
def test_an_unattended_round_takes_the_rest_and_flags_it(
    loop: SmallLoop, setting: dict[str, float]
) -> None:
    loop.settings["selection"] = setting
    round_id = loop.take_in()
    taken = select(config=loop.config).n_selected
    counts = loop.lake.rounds.get(round_id)
    assert counts is not None
    told = counts.counts["selection"]
    assert taken == told["eligible"] and told["pool"] == told["eligible"] + sum(
        told["removed"].values()
    )
    assert "budget_exceeds_pool" in told["flags"] or told["requested"] <= taken
    assert loop.label() > 0 and not doubled(loop.lake)


def test_a_round_with_nothing_left_to_select_goes_on_with_the_labels_that_are_there(
    loop: SmallLoop,
) -> None:
    loop.settings["selection"]["n_samples"] = 1000
    loop.take_in()
    loop.label()
    first = loop.publish()
    assert loop.take_in() == "0001"
    assert select(config=loop.config).n_selected == 0
    held = loop.lake.rounds.get("0001")
    assert held is not None and "budget_exceeds_pool" in held.counts["selection"]["flags"]
    loop.label()
    second = train(config=loop.config)
    assert second.model_id != first and second.n_labels > 0 and not doubled(loop.lake)
