"""The selection section: defaults, LightlyOne's dialect, and refusals that name what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from visionloop.errors import InputError
from visionloop.selection.config import SelectionConfig, parse_selection_config


def entry(
    input_type: str, strategy_type: str, *, of: dict[str, Any] | None = None, **strategy: Any
) -> dict[str, Any]:
    return {
        "input": {"type": input_type, **(of or {})},
        "strategy": {"type": strategy_type, **strategy},
    }


def test_an_empty_section_is_the_automatic_schedule_of_twenty_labels() -> None:
    config = parse_selection_config({})
    assert config == SelectionConfig()
    assert (config.n_samples, config.strategy, config.random_share) == (20, "auto", 0.1)


LIGHTLY_SNAKE = {
    "n_samples": 50,
    "strategies": [
        entry("EMBEDDINGS", "DIVERSITY", strength=0.6, stopping_condition_minimum_distance=0.2),
        entry("EMBEDDINGS", "TYPICALITY", num_nearest_neighbors=30),
        entry(
            "SCORES",
            "WEIGHTS",
            of={"task": "my_classifier", "score": "uncertainty_least_confidence"},
        ),
        entry(
            "METADATA",
            "THRESHOLD",
            of={"key": "lightly.sharpness"},
            threshold=20,
            operation="BIGGER",
        ),
        entry(
            "METADATA",
            "BALANCE",
            of={"key": "weather"},
            target={"sunny": 0.2, "rainy": 0.4},
        ),
        entry("PREDICTIONS", "BALANCE", of={"name": "CLASS_DISTRIBUTION"}, distribution="UNIFORM"),
        entry("RANDOM", "WEIGHTS", of={"random_seed": 42}),
    ],
}


def test_a_lightlyone_configuration_parses_as_it_stands() -> None:
    config = parse_selection_config(LIGHTLY_SNAKE)
    assert config.strategy == "custom"
    assert config.n_samples == 50
    assert config.strategies[0].strategy.stopping_condition_minimum_distance == 0.2
    assert config.strategies[2].input.score_name() == "least_confidence"


def test_camel_case_keys_mean_the_same() -> None:
    camel = {
        "nSamples": 50,
        "strategies": [
            entry("EMBEDDINGS", "DIVERSITY", strength=0.6, stoppingConditionMinimumDistance=0.2),
            entry("EMBEDDINGS", "TYPICALITY", numNearestNeighbors=30),
            *LIGHTLY_SNAKE["strategies"][2:6],  # type: ignore[index]
            entry("RANDOM", "WEIGHTS", of={"randomSeed": 42}),
        ],
    }
    assert parse_selection_config(camel) == parse_selection_config(LIGHTLY_SNAKE)


def test_a_file_with_one_selection_section_is_that_section() -> None:
    assert parse_selection_config({"selection": {"n_samples": 7}}).n_samples == 7
    assert parse_selection_config({"selection_config": LIGHTLY_SNAKE}).n_samples == 50


def test_a_proportion_replaces_the_number() -> None:
    config = parse_selection_config({"proportion_samples": 0.25})
    assert config.proportion_samples == 0.25


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"n_sample": 3}, "did you mean `n_samples`"),
        ({"n_samples": 0}, "n_samples"),
        ({"n_samples": 3, "proportion_samples": 0.5}, "not both"),
        ({"strategy": "custom"}, "strategies"),
        ({"strategy": "auto", "strategies": [entry("EMBEDDINGS", "DIVERSITY")]}, "custom"),
        ({"strategies": [entry("EMBEDDINGS", "DIVERSITI")]}, "DIVERSITI|DIVERSITY"),
        ({"strategies": [entry("EMBEDDINGS", "DIVERSITY", strenght=1)]}, "did you mean `strength`"),
        ({"strategies": [entry("EMBEDDINGS", "WEIGHTS")]}, "WEIGHTS is not supported on"),
        ({"strategies": [entry("METADATA", "WEIGHTS")]}, "needs `key`"),
        ({"strategies": [entry("SCORES", "WEIGHTS")]}, "needs `score`"),
        (
            {"strategies": [entry("SCORES", "WEIGHTS", of={"score": "doubt"})]},
            "the score 'doubt' is not supported; use one of margin",
        ),
        (
            {"strategies": [entry("SCORES", "WEIGHTS", of={"score": "bald", "reducer": "sum"})]},
            "`reducer` belongs to margin",
        ),
        ({"strategies": [entry("EMBEDDINGS", "SIMILARITY")]}, "needs `query`"),
        (
            {"strategies": [entry("EMBEDDINGS", "DIVERSITY", of={"task": "boxes"})]},
            "embeddings of objects",
        ),
        (
            {"strategies": [entry("PREDICTIONS", "WEIGHTS", of={"name": "CLASS_DISTRIBUTION"})]},
            "needs `categories`",
        ),
        (
            {
                "strategies": [
                    entry(
                        "METADATA",
                        "WEIGHTS",
                        of={"key": "speed"},
                        targetRange={"min_sum": 3, "maxSum": 2},
                    )
                ]
            },
            "`max_sum` must not be smaller than `min_sum`",
        ),
        (
            {
                "strategies": [
                    entry("EMBEDDINGS", "DIVERSITY", stopping_condition_minimum_typicality=0.2)
                ]
            },
            "`stopping_condition_minimum_typicality` belongs to the strategy TYPICALITY",
        ),
        (
            {"strategies": [entry("METADATA", "THRESHOLD", of={"key": "a"}, threshold=1)]},
            "needs `threshold` and `operation`",
        ),
        (
            {
                "strategies": [
                    entry(
                        "METADATA",
                        "THRESHOLD",
                        of={"key": "a"},
                        threshold=1,
                        operation="BIGGER",
                    )
                ]
            },
            "NEAR_DUPLICATES and THRESHOLD only filter: .* an objective beside them",
        ),
        (
            {
                "strategies": [
                    entry("METADATA", "BALANCE", of={"key": "a"}, target={"x": 0.9, "y": 0.3})
                ]
            },
            "sum to over 1",
        ),
        ({"strategies": [entry("METADATA", "BALANCE", of={"key": "a"})]}, "needs `target`"),
        (
            {"strategies": [entry("EMBEDDINGS", "PROBCOVER", radius=0.5, purity=0.9)]},
            "`radius` or `purity`, not both",
        ),
        (
            {"strategies": [{**entry("EMBEDDINGS", "DIVERSITY", strength=1), "strength": 2}]},
            "`strength` stands once",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(data: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_selection_config(data, where="selection.yaml")


def test_the_error_names_the_place_inside_the_file() -> None:
    with pytest.raises(InputError, match=r"strategies\.1\.strategy\.strenght.*selection\.yaml"):
        parse_selection_config(
            {
                "strategies": [
                    entry("EMBEDDINGS", "DIVERSITY"),
                    entry("EMBEDDINGS", "DIVERSITY", strenght=1),
                ]
            },
            where="selection.yaml",
        )
