"""LightlyOne's selection configurations run as they stand, with LightlyOne's meaning.

`lightly/` holds one for each example of its documentation and each key of its schema; only names of
tasks, classes and columns are ours.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.selection.small_lake import ids, put
from visionloop import cli
from visionloop.lake import Lake
from visionloop.selection.config import parse_selection_config
from visionloop.selection.objectives import Similarity, density_typicality, query_distances
from visionloop.selection.scores import entropy, least_confidence, margin

FOLDER = Path(__file__).parent / "lightly"
N = 120
NAMES = ids(N)
PLACE = {name: i for i, name in enumerate(NAMES)}
CLASSES = ["car", "bus", "tram"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8))[RNG.integers(6, size=N)] + 0.6 * RNG.normal(size=(N, 8))
X = np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True), dtype=np.float32)
BOXES = [RNG.dirichlet(np.ones(3), size=k).astype(np.float32) for k in RNG.integers(5, size=N)]
SHARPNESS = RNG.uniform(0, 60, size=N).astype(np.float32)
WEATHER = [str(w) for w in RNG.choice(["sunny", "rainy", "cloudy", "foggy"], size=N)]
VIDEO = [f"video{v}" for v in RNG.choice(4, size=N, p=[0.6, 0.2, 0.1, 0.1])]
TEMPERATURE = RNG.uniform(0, 30, size=N)
RARE = [5, 17]
COUNTS = np.array([np.bincount(b.argmax(axis=1), minlength=3) for b in BOXES])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake.open(str(tmp_path_factory.mktemp("lightly") / "lake"), loop="test")
    samples = [
        {"sample_id": s, "split": "pool", "sharpness": float(v)}
        for s, v in zip(NAMES, SHARPNESS, strict=True)
    ]
    put(lake, "samples", samples)
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("pixels", NAMES, X)
        columns = {
            "sample_id": NAMES,
            "weather_description": WEATHER,
            "video_name": VIDEO,
            "weather_temperature": TEMPERATURE.tolist(),
            "raw": ["{}"] * N,
        }
        run.append("metadata", pa.table(columns))
        run.commit(outputs={"space": "pixels"})
    put(
        lake,
        "experiments",
        [{"model_id": "m", "state": "in_service", "arm": "loop", "classes": CLASSES}],
    )
    corner = {"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0, "label": None}
    put(
        lake,
        "predictions",
        [
            {
                "sample_id": name,
                "model_id": "m",
                "boxes": [{**corner, "scores": row.tolist()} for row in boxes],
            }
            for name, boxes in zip(NAMES, BOXES, strict=True)
        ],
    )
    put(lake, "flags", [{"subject": NAMES[i], "kind": "rare"} for i in RARE])
    return lake


@pytest.fixture
def run(lake: Lake, capsys: pytest.CaptureFixture[str]) -> Any:
    def select(name: str, *more: str) -> dict[str, Any]:
        capsys.readouterr()
        file = str(FOLDER / f"{name}.json")
        status = cli.main(["select", "--lake", lake.uri, "--config", file, "--json", *more])
        assert status == 0, capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        found["rows"] = [PLACE[pick["sample_id"]] for pick in found["picks"]]
        return found

    return select


def distances(rows: list[int]) -> np.ndarray:
    return np.linalg.norm(X[:, None].astype(np.float64) - X[rows][None], axis=2)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_every_configuration_runs_as_it_stands(run: Any, name: str) -> None:
    found = run(name)
    assert 0 < len(found["rows"]) == len(set(found["rows"])) == found["n_selected"]
    arms = {pick["arm"] for pick in found["picks"]}
    assert arms == {"selected"}, "LightlyOne draws no share and has no quota"


def test_diversity_keeps_the_minimum_distance_and_then_stops(run: Any) -> None:
    found = run("minimum_distance")
    chosen = found["rows"]
    apart = distances(chosen)
    within = apart[chosen]
    assert within[~np.eye(len(chosen), dtype=bool)].min() >= 0.9
    assert (apart.min(axis=1) < 0.9).all(), "nobody is left who is that far"
    assert found["flags"] == ["budget_exceeds_pool", "minimum_distance"]


@pytest.mark.parametrize(
    ("name", "formula"),
    [("active_learning", entropy), ("least_confidence", least_confidence), ("margin", margin)],
)
def test_a_score_is_the_largest_over_the_boxes_and_zero_without_any(
    run: Any, name: str, formula: Any
) -> None:
    score = np.array([formula(b).max() if len(b) else 0.0 for b in BOXES])
    expected = np.argsort(-score.round(6), kind="stable")[:12]
    assert run(name)["rows"] == expected.tolist()


def test_thresholds_come_first(run: Any) -> None:
    assert all(SHARPNESS[i] > 20 for i in run("metadata_threshold")["rows"])
    assert all(len(BOXES[i]) >= 2 for i in run("object_count_threshold")["rows"])


def test_a_threshold_alone_takes_any_of_those_who_pass(run: Any) -> None:
    few, all_of_them = run("metadata_threshold")["rows"], run("metadata_threshold", "-n", "60")
    passing = [i for i in range(N) if SHARPNESS[i] > 20]
    assert len(few) == 12 and sorted(few) != passing[:12], "by lot, not by id"
    assert few == all_of_them["rows"][:12] and set(all_of_them["rows"]) <= set(passing)


def test_a_target_leaves_the_rest_to_any_other_value(run: Any) -> None:
    chosen = Counter(WEATHER[i] for i in run("metadata_balance_target")["rows"])
    assert (chosen["rainy"], chosen["sunny"]) == (8, 2), "7.2 and 2.4 by highest averages"
    held = sum(BOXES[i].sum(axis=0) for i in run("class_balance_target")["rows"])
    np.testing.assert_allclose(held / held.sum(), [0.2, 0.4, 0.4], atol=0.08)


def test_balances_without_a_target_are_uniform_or_as_the_input(run: Any) -> None:
    chosen = Counter(VIDEO[i] for i in run("metadata_balance_uniform")["rows"])
    assert set(chosen.values()) == {3}
    held = sum(BOXES[i].sum(axis=0) for i in run("class_balance_input")["rows"])
    everyone = sum(boxes.sum(axis=0) for boxes in BOXES)
    np.testing.assert_allclose(held / held.sum(), everyone / everyone.sum(), atol=0.05)


def test_weights_take_the_largest_and_random_takes_the_share(run: Any) -> None:
    expected = np.argsort(-TEMPERATURE, kind="stable")[:12]
    assert run("metadata_weights")["rows"] == expected.tolist()
    assert len(run("random_selection")["rows"]) == 12
    assert run("random_selection")["rows"] == run("random_selection")["rows"]


def test_similarity_is_to_the_samples_of_a_tag_and_can_be_inverted(run: Any) -> None:
    similar = Similarity(query_distances(X, X[RARE])).values()
    found = run("similarity_search")
    assert found["rows"] == np.argsort(-similar.round(6), kind="stable")[:12].tolist()
    assert "dataset_id_without_effect" in found["flags"]
    away = run("dissimilar")["rows"]
    assert away == np.argsort(similar.round(6), kind="stable")[:12].tolist()


def test_both_stopping_conditions_and_the_range(run: Any) -> None:
    found = run("typicality_stop")
    typicality = density_typicality(X, 10)
    assert len(found["rows"]) == int((typicality >= 0.42).sum()) < 60
    assert "minimum_typicality" in found["flags"]
    found = run("max_sum")
    weights = COUNTS[:, 1] + COUNTS[:, 2]
    sums = np.cumsum(weights[found["rows"]])
    assert sums[-2] < 20 <= sums[-1]
    assert found["flags"] == ["max_sum"]
    found = run("target_range")
    assert len(found["rows"]) == 20
    assert 8 <= COUNTS[found["rows"], 1].sum() <= 12


def test_the_number_of_samples_is_the_most_that_it_takes(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.json"
    line = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "DIVERSITY"}}
    file.write_text(json.dumps({"n_samples": 500, "strategies": [line]}))
    common = ["select", "--lake", lake.uri, "--config", str(file), "--json"]
    assert cli.main(common) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_selected"], found["flags"]) == (N, ["budget_exceeds_pool"])
    assert cli.main([*common, "-n", "500"]) == 2, "what the command itself asks for is asked for"


def test_only_a_file_with_nothing_but_its_keys_is_lightlys() -> None:
    line = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "DIVERSITY"}}
    plain = {"n_samples": 5, "strategies": [line]}
    theirs = parse_selection_config(plain, alone=True)
    assert (theirs.dialect, theirs.random_share, theirs.exclude_flags) == ("lightly", 0.0, ())
    ours = parse_selection_config({**plain, "seed": 1}, alone=True)
    assert (ours.dialect, ours.random_share) == ("visionloop", 0.1)
    assert parse_selection_config(plain).dialect == "visionloop", "a section of loop.yaml"
    said = parse_selection_config({**plain, "dialect": "lightly", "random_share": 0.2})
    assert (said.dialect, said.random_share) == ("lightly", 0.2)


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        ({"type": "EMBEDDINGS"}, {"type": "COVERAGE"}),
        ({"type": "EMBEDDINGS", "space": "pixels"}, {"type": "DIVERSITY"}),
        ({"type": "EMBEDDINGS", "query": ["a"]}, {"type": "SIMILARITY"}),
        ({"type": "SCORES", "score": "deployed_margin"}, {"type": "WEIGHTS"}),
    ],
)
def test_a_file_with_a_line_that_only_we_have_is_ours(
    given: dict[str, Any], strategy: dict[str, Any]
) -> None:
    data = {"n_samples": 5, "strategies": [{"input": given, "strategy": strategy}]}
    assert parse_selection_config(data, alone=True).dialect == "visionloop"


def test_the_command_says_whose_configuration_it_reads(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "theirs.json"
    inner = json.loads((FOLDER / "visual_diversity.json").read_text(encoding="utf-8"))
    file.write_text(
        json.dumps({"worker_config": {"use_datapool": True}, "selection_config": inner})
    )
    assert cli.main(["select", "--lake", lake.uri, "--config", str(file), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["dialect"] == "lightly"
    assert "read as LightlyOne's" in told.err and "`worker_config`: read without" in told.err
    file.write_text(json.dumps(inner | {"seed": 1}))
    assert cli.main(["select", "--lake", lake.uri, "--config", str(file), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["dialect"] == "visionloop" and "LightlyOne" not in told.err


def test_older_names_and_nulls_of_its_clients_are_read() -> None:
    line = {
        "input": {"type": "EMBEDDINGS", "task": None, "space": None},
        "strategy": {"type": "DIVERSIFY", "strength": None, "threshold": None},
    }
    data = {"nSamples": None, "proportionSamples": 0.5, "strategies": [line]}
    (read,) = parse_selection_config({"selectionConfig": data}, alone=True).strategies
    assert (read.strategy.type, read.strategy.strength) == ("DIVERSITY", 1.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lightly_path_regex": "(?P<day>.*)"}, "sidecar"),
        ({"autoTasks": [{"type": "CROP"}]}, "predictions of the loop's own model"),
        ({"workerConfig": {"relevantFilenamesFile": "a.txt"}}, "limits what is selected from"),
    ],
)
def test_what_is_no_selection_here_is_refused_with_a_remedy(
    change: dict[str, Any], told: str
) -> None:
    from visionloop.errors import InputError

    line = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "DIVERSITY"}}
    with pytest.raises(InputError, match=told):
        parse_selection_config({"n_samples": 5, "strategies": [line], **change}, alone=True)
