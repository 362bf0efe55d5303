"""Selections by what nothing is known of: a person is told, a round takes typical samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import CLASSES, NOW, fill, ids, label, put, vectors
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.selection.config import SelectionConfig, parse_selection_config
from visionloop.selection.engine import select
from visionloop.selection.pool import Pool
from visionloop.selection.record import select_from_lake

MARGIN = {"type": "SCORES", "score": "margin"}
PREDICTIONS = {"type": "PREDICTIONS", "name": "CLASS_DISTRIBUTION"}
EMBEDDINGS = {"type": "EMBEDDINGS"}
UNIFORM = {"type": "BALANCE", "distribution": "UNIFORM"}
ABOVE = {"type": "THRESHOLD", "operation": "BIGGER", "threshold": 0.1}


def lines(*pairs: tuple[dict[str, Any], dict[str, Any]], **more: Any) -> SelectionConfig:
    strategies = [{"input": one, "strategy": two} for one, two in pairs]
    return parse_selection_config({"strategies": strategies, **more})


def unpredicted(n: int = 12) -> Pool:
    return Pool.build(ids(n), embeddings={"e": vectors(n)}, classes=CLASSES)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ((MARGIN, {"type": "WEIGHTS"}), "margin"),
        ((MARGIN, {"type": "WEIGHTS", "target_range": {"min_sum": 2}}), "margin"),
        ((PREDICTIONS, UNIFORM), "balance_classes"),
        ((EMBEDDINGS, {"type": "BADGE"}), "badge"),
        (({"type": "SCORES", "score": "vote_entropy"}, {"type": "WEIGHTS"}), "vote_entropy"),
        (
            ({"type": "SCORES", "score": "object_frequency"}, {"type": "WEIGHTS"}),
            "object_frequency",
        ),
        (({**PREDICTIONS, "categories": ["cat"]}, {"type": "WEIGHTS"}), "probability_cat"),
        ((PREDICTIONS, {"type": "BALANCE", "target": {"cat": 0.5}}), "balance_classes"),
    ],
)
def test_lines_that_know_nothing_are_an_error_by_hand_and_typicality_in_a_round(
    line: Any, name: str
) -> None:
    with pytest.raises(InputError, match=f"nothing is known of {name} of any of the 12 samples"):
        select(unpredicted(), lines(line), 4)
    found = select(unpredicted(), lines(line), 4, unattended=True)
    typical = select(unpredicted(), parse_selection_config({"strategy": "typicality"}), 4)
    assert found.sample_ids == typical.sample_ids
    assert "cold_start" in found.flags


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_lines_on_classes_wait_for_the_first_model(classes: list[str]) -> None:
    pool = Pool.build(ids(12), embeddings={"e": vectors(12)}, classes=classes)
    counted = {"type": "PREDICTIONS", "name": "CATEGORY_COUNT", "categories": [CLASSES[0]]}
    shared = {"type": "BALANCE", "target": {CLASSES[0]: 0.5}}
    config = lines((counted, {"type": "WEIGHTS"}), (PREDICTIONS, shared))
    assert "cold_start" in select(pool, config, 4, unattended=True).flags


def test_one_model_is_no_committee_and_a_round_says_so() -> None:
    pool = Pool.build(
        ids(12),
        embeddings={"e": vectors(12)},
        probabilities=np.full((12, 2), 0.5),
        classes=["a", "b"],
    )
    votes = {"type": "SCORES", "score": "vote_entropy"}
    found = select(pool, lines((votes, {"type": "WEIGHTS"})), 4, unattended=True)
    assert found.flags == ("nothing_known", "unknown_vote_entropy") and len(found.picks) == 4
    above = lines((votes, ABOVE), (EMBEDDINGS, {"type": "DIVERSITY"}))
    found = select(pool, above, 4, unattended=True)
    assert found.flags == ("threshold_unknown",) and len(found.picks) == 4


def test_a_line_that_knows_nothing_beside_others_has_no_say_and_is_flagged() -> None:
    both = lines((PREDICTIONS, UNIFORM), (EMBEDDINGS, {"type": "DIVERSITY"}))
    found = select(unpredicted(), both, 4)
    alone = select(unpredicted(), lines((EMBEDDINGS, {"type": "DIVERSITY"})), 4)
    assert found.sample_ids == alone.sample_ids
    assert found.flags == ("unknown_balance_classes",)


def test_a_threshold_on_what_nothing_is_predicted_of_leaves_a_round_its_samples() -> None:
    config = lines((MARGIN, ABOVE), (EMBEDDINGS, {"type": "DIVERSITY"}), dialect="lightly")
    with pytest.raises(InputError, match="nothing is known of margin, which a THRESHOLD is on"):
        select(unpredicted(), config, 4, at_most=True)
    found = select(unpredicted(), config, 4, unattended=True)
    assert len(found.picks) == 4 and found.flags == ("threshold_unknown",)
    sharp = lines(
        ({"type": "METADATA", "key": "sharpness"}, ABOVE), (EMBEDDINGS, {"type": "BADGE"})
    )
    pool = Pool.build(ids(3), embeddings={"e": vectors(3)}, metadata={"sharpness": [None] * 3})
    assert not select(pool, sharp, 2, unattended=True).picks  # only predictions come later


def serve(lake: Lake) -> None:
    row = {"model_id": "m7", "state": "in_service", "arm": "loop", "classes": CLASSES, "uri": ""}
    put(lake, "experiments", [row | {"trained_at": NOW}])


@pytest.mark.parametrize("strategy", ["auto", "uncertainty", "badge"])
def test_a_new_model_that_has_predicted_nothing_is_named_with_the_remedy(
    lake: Lake, strategy: str
) -> None:
    names = fill(lake)
    label(lake, names[10:20])
    serve(lake)
    made = select_from_lake(lake, parse_selection_config({"strategy": strategy}), 4)
    assert made.selection.flags == ("cold_start",)
    (warning,) = made.warnings
    assert "the model m7 has predicted none of the 30 samples" in warning
    assert "`visionloop run intake --config loop.yaml`" in warning


def test_the_command_says_what_was_not_as_configured(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(lake)
    given = ["select", "--lake", lake.uri, "--loop", lake.loop]
    file = tmp_path / "selection.yaml"
    line = "{input: {type: EMBEDDINGS}, strategy: {type: DIVERSITY, "
    file.write_text(
        f"strategies:\n - {line} stopping_condition_minimum_distance: 1.3}}}}\n", encoding="utf-8"
    )
    assert main([*given, "--config", str(file), "-n", "20", "--json"]) == 0
    told = capsys.readouterr()
    sentence = "The minimum distance between samples ended the selection."
    assert f"warning: {sentence}" in told.err
    result = json.loads(told.out)
    assert sentence in result["warnings"] and 0 < result["n_selected"] < 20
    assert main([*given, "--seed", "-1"]) == 2
    assert "--seed -1" in capsys.readouterr().err
