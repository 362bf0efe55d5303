"""Names and explanations of picks say what is true of them, whatever the strengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import ids, vectors
from visionloop.selection.config import parse_selection_config
from visionloop.selection.engine import Selection, select
from visionloop.selection.explain import explain, strongest
from visionloop.selection.objectives import FLOOR
from visionloop.selection.pool import Pool
from visionloop.selection.record import picks_table, selection_rows

N = 30
EMBEDDINGS = {"type": "EMBEDDINGS"}
SPEED = {"type": "METADATA", "key": "speed"}
MARGIN = {"type": "SCORES", "score": "margin"}


def chosen(*pairs: tuple[dict[str, Any], dict[str, Any]], n: int = 3) -> Selection:
    p = np.random.default_rng(3).dirichlet(np.ones(3), size=N)
    pool = Pool.build(
        ids(N),
        embeddings={"e": vectors(N)},
        probabilities=p,
        classes=["a", "b", "c"],
        metadata={"speed": [float(i) for i in range(N)]},
    )
    strategies = [{"input": one, "strategy": two} for one, two in pairs]
    return select(pool, parse_selection_config({"strategies": strategies, "random_share": 0}), n)


def said(selection: Selection) -> str:
    return explain(selection.picks[0].objectives)


@pytest.mark.parametrize(
    ("source", "strategy", "name", "text"),
    [
        ({**EMBEDDINGS, "query": [ids(N)[3]]}, {"type": "SIMILARITY"}, "similarity", "unlike the"),
        (SPEED, {"type": "WEIGHTS"}, "weight_speed", "its value of speed is low"),
        (MARGIN, {"type": "WEIGHTS"}, "margin", "does not hesitate between two classes"),
        (EMBEDDINGS, {"type": "TYPICALITY"}, "typicality", "it is unlike most other images"),
    ],
)
def test_a_negative_strength_is_explained_by_what_it_wants(
    source: dict[str, Any], strategy: dict[str, Any], name: str, text: str
) -> None:
    against = chosen((source, {**strategy, "strength": -1}))
    assert dict(against.strengths) == {f"negative_{name}": -1.0}
    assert text in said(against)
    for_it = chosen((source, strategy))
    assert dict(for_it.strengths) == {name: 1.0}
    assert text not in said(for_it)


def test_what_has_no_say_explains_nothing() -> None:
    both = chosen((MARGIN, {"type": "WEIGHTS", "strength": 0}), (SPEED, {"type": "WEIGHTS"}))
    assert set(both.strengths) == {"zero_margin", "weight_speed"}
    assert said(both) == "Picked because its value of speed is high (weight speed 1.00)."
    assert explain({"zero_margin": 0.9}).startswith("Nothing was known")


def test_of_a_negative_strength_the_smallest_value_is_the_strongest_reason() -> None:
    assert strongest({"negative_similarity": 0.1, "margin": 0.8}) == "negative_similarity"
    assert strongest({"negative_similarity": 0.9, "margin": 0.8}) == "margin"


def test_the_smallest_value_that_there_is_explains_nothing() -> None:
    assert explain({"margin": FLOOR}).startswith("Nothing was known of it that sets it apart")
    assert "hesitates" not in explain({"margin": FLOOR, "diversity": 0.2})
    assert "range" in explain({"range_speed": FLOOR})


def test_a_value_over_the_best_of_its_step_is_no_figure_to_show() -> None:
    found = chosen((EMBEDDINGS, {"type": "PROBCOVER", "radius": 0.9}))
    assert found.picks[0].objectives == {"probcover": 1.0}
    assert said(found).endswith("close to many images that nothing labelled is close to.")
    assert explain({"probcover": 1.0, "margin": 0.6}).endswith("(margin 0.60).")


def test_a_table_of_picks_has_0_where_an_objective_had_nothing_to_add() -> None:
    covered = chosen((EMBEDDINGS, {"type": "PROBCOVER", "radius": 1.4}), n=10)
    table = picks_table(selection_rows(covered, model_id=""))
    assert table["probcover"].to_pylist()[0] == 1.0 and table["probcover"].to_pylist()[-1] == 0.0
    assert table["why"].to_pylist()[-1].startswith("Nothing was known of it that sets it apart")


def test_a_range_is_explained_by_the_sum() -> None:
    ranged = {"type": "WEIGHTS", "target_range": {"min_sum": 40, "max_sum": 44}}
    selection = chosen((SPEED, ranged))
    assert set(selection.strengths) == {"range_speed"}
    assert "its value of speed leads the sum over the batch into the wanted range" in said(
        selection
    )


def test_two_lines_of_the_same_kind_have_names_of_their_own() -> None:
    weights = {"type": "WEIGHTS", "strength": -1}
    selection = chosen((SPEED, weights), (SPEED, weights))
    assert list(selection.strengths) == ["negative_weight_speed", "negative_weight_speed_2"]
    assert "its value of speed is low" in said(selection)
