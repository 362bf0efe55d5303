"""The stage and the command's function on a real lake: what is read, what is written, resuming."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.selection.small_lake import CLASSES, NOW, deploy, fill, ids, label, put, vectors
from visionloop.errors import InputError
from visionloop.lake import Lake
from visionloop.selection.config import parse_selection_config
from visionloop.selection.material import read_material
from visionloop.selection.record import picks_table, select_from_lake
from visionloop.stages.select import round_seed, select


def loop_yaml(lake: Lake, **selection: Any) -> str:
    return json.dumps(
        {"name": lake.loop, "lake": lake.uri, "classes": CLASSES, "selection": selection}
    )


def artifact(folder: Path, name: str) -> SimpleNamespace:
    return SimpleNamespace(path=str(folder / name), uri=str(folder / name), metadata={})


class Metrics:
    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


def test_a_cold_round_selects_writes_its_picks_and_says_why(lake: Lake, tmp_path: Path) -> None:
    names = fill(lake)
    lake.rounds.open("run-1")
    metrics, page = Metrics(), artifact(tmp_path, "page.md")
    selected = artifact(tmp_path, "selected.parquet")
    result = select(
        config=loop_yaml(lake, n_samples=6),
        lake_version=lake.version(),
        round_id="0000",
        selected=selected,
        metrics=metrics,
        page=page,
    )
    assert result.n_selected == 6
    rows = lake.read("selections", version=result.lake_version).sort_by("rank").to_pylist()
    assert [row["rank"] for row in rows] == list(range(6))
    assert {row["round_id"] for row in rows} == {"0000"}
    assert {row["run_id"] for row in rows} == {"run-1"}
    assert {row["arm"] for row in rows} == {"selected"}
    assert {row["space"] for row in rows} == {"pixels"}
    assert all(0 < json.loads(row["objectives"])["coverage"] <= 1 for row in rows)
    assert rows[0]["nearest_chosen"] is None
    assert rows[0]["nearest_distance"] is None
    assert rows[1]["nearest_distance"] > 0
    # Pool 2 is the same picture as a sample of the holdout.
    assert names[2] not in {row["sample_id"] for row in rows}
    table = pq.read_table(selected.path)
    assert table["sample_id"].to_pylist() == [row["sample_id"] for row in rows]
    assert selected.metadata["rows"] == 6
    assert metrics.logged == {"n_selected": 6, "n_random": 0, "n_eligible": 29, "n_pool": 30}
    text = Path(page.path).read_text()
    assert "copies of the holdout | -1 | 29" in text
    assert text.count("typical of a group of images with few labels") == 6
    held = lake.rounds.get("0000")
    assert held is not None
    assert held.counts["selected"] == 6
    assert held.counts["selection"]["eligible"] == 29


def test_a_task_that_runs_again_after_its_commit_hands_on_a_version_with_the_picks(
    lake: Lake,
) -> None:
    fill(lake)
    before = lake.version()
    config = loop_yaml(lake, n_samples=5)
    first = select(config=config, lake_version=before, round_id="0000")
    again = select(config=config, lake_version=before, round_id="0000", n_samples=7)
    assert first.n_selected == again.n_selected == 5
    assert lake.read("selections", version=again.lake_version).num_rows == 5


def test_a_round_that_runs_again_returns_the_same_picks(lake: Lake, tmp_path: Path) -> None:
    fill(lake)
    config = loop_yaml(lake, n_samples=5)
    first = select(config=config, round_id="0000")
    before = lake.read("selections").sort_by("rank").to_pylist()
    label(lake, [before[0]["sample_id"]])  # labels came in before the stage ran again
    page = artifact(tmp_path, "page.md")
    again = select(config=config, round_id="0000", n_samples=9, page=page)
    assert again.n_selected == first.n_selected == 5
    assert lake.read("selections").sort_by("rank").to_pylist() == before
    assert "had selected before" in Path(page.path).read_text()


def test_the_next_round_takes_nothing_twice(lake: Lake) -> None:
    names = fill(lake, n=12)
    select(config=loop_yaml(lake, n_samples=4), round_id="0000")
    first = set(lake.read("selections")["sample_id"].to_pylist())
    put(lake, "label_requests", [{"sample_id": names[0], "purpose": "training"}])
    label(lake, [names[1]])
    result = select(config=loop_yaml(lake, n_samples=50), round_id="0001")
    rows = lake.read("selections", where="round_id == '0001'")
    second = set(rows["sample_id"].to_pylist())
    assert not second & (first | {names[0], names[1], names[2]})
    assert result.n_selected == len(second) == 12 - len(first | set(names[:3]))


def test_the_model_in_service_is_the_one_whose_predictions_count(lake: Lake) -> None:
    names = fill(lake)
    deploy(lake, names)
    select(config=loop_yaml(lake, n_samples=5, strategy="uncertainty", random_share=0))
    rows = lake.read("selections").sort_by("rank").to_pylist()
    assert {row["model_id"] for row in rows} == {"m1"}
    p = np.sort(np.random.default_rng(3).dirichlet(np.ones(3), size=30), axis=1)
    uncertainty = 1 - (p[:, 2] - p[:, 1])
    uncertainty[2] = -1  # a copy of a holdout sample
    expected = [names[i] for i in np.argsort(-uncertainty, kind="stable")[:5]]
    assert [row["sample_id"] for row in rows] == expected
    best = json.loads(rows[0]["objectives"])["margin"]
    assert best == pytest.approx(uncertainty.max(), abs=1e-5)


def test_with_a_model_a_tenth_of_the_batch_is_random(lake: Lake) -> None:
    deploy(lake, fill(lake, n=60))
    select(config=loop_yaml(lake, n_samples=20))
    rows = lake.read("selections").to_pylist()
    drawn = [row for row in rows if row["arm"] == "random"]
    assert len(drawn) == 2
    assert {row["propensity"] for row in drawn} == {2 / 59}


def test_the_newest_deployed_confidence_of_a_sample_counts(lake: Lake) -> None:
    names = fill(lake)
    deploy(lake, names)
    put(
        lake,
        "confidences",
        [
            {
                "event_id": f"e{i}",
                "row": 0,
                "occurred_at": NOW + timedelta(hours=hour),
                "sample_id": sample,
                "margin": value,
                "entropy": None,
                "least_confidence": value,
            }
            for i, (sample, hour, value) in enumerate(
                [(names[4], 2, 0.9), (names[4], 1, 0.1), (names[5], 1, 0.2), (None, 3, 0.7)]
            )
        ],
    )
    material = read_material(lake, parse_selection_config({}))
    deployed = material.pool.scores["deployed_margin"]
    assert deployed[4] == pytest.approx(0.9)
    assert deployed[5] == pytest.approx(0.2)
    assert np.isnan(np.delete(deployed, [4, 5])).all()
    assert np.isnan(material.pool.scores["deployed_entropy"]).all()
    select(config=loop_yaml(lake, n_samples=10))
    rows = lake.read("selections").to_pylist()
    assert names[4] in {row["sample_id"] for row in rows}
    assert all("deployed_margin" in json.loads(row["objectives"]) for row in rows)


def test_flagged_near_duplicates_stay_out_unless_asked_for(lake: Lake) -> None:
    names = fill(lake)
    put(
        lake,
        "flags",
        [
            {"subject": names[0], "subject_type": "sample", "kind": "near_duplicate"},
            {"subject": names[1], "subject_type": "sample", "kind": "blurred"},
            {"subject": names[3], "subject_type": "file", "kind": "near_duplicate"},
        ],
    )

    def left(**selection: Any) -> set[str]:
        config = parse_selection_config(selection)
        picked = select_from_lake(
            lake, config, n=30 - 1 - len(selection["exclude_flags"])
        ).selection
        return set(picked.sample_ids)

    assert left(exclude_flags=["near_duplicate"]) == set(names) - {names[0], names[2]}
    assert left(exclude_flags=[]) == set(names) - {names[2]}


def test_the_base_space_is_used_and_spaces_never_mix(lake: Lake) -> None:
    names = fill(lake)
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("model_m1", names, vectors(30, seed=8))
        run.commit(outputs={"space": "pixels", "model_space": "model_m1"})
    deploy(lake, names)
    assert read_material(lake, parse_selection_config({})).space == "pixels"
    material = read_material(lake, parse_selection_config({"space": "model_m1"}))
    assert material.space == "model_m1"
    np.testing.assert_allclose(material.pool.embeddings["model_m1"], vectors(30, seed=8), atol=1e-6)
    with pytest.raises(InputError, match=r"space 'other'.*model_m1, pixels"):
        read_material(lake, parse_selection_config({"space": "other"}))


def test_two_spaces_without_a_word_on_which_are_an_error(lake: Lake) -> None:
    with lake.run(stage="test", round_id="0000") as run:
        for space in ("one", "two"):
            run.append_embeddings(space, ids(4), vectors(4))
        run.commit()
    with pytest.raises(InputError, match=r"2 embedding spaces.*Name one of one, two"):
        read_material(lake, parse_selection_config({}))


def test_samples_without_an_embedding_are_counted(lake: Lake) -> None:
    fill(lake, n=10)
    put(lake, "samples", [{"sample_id": "e" * 64, "split": "pool"}])
    selection = select_from_lake(lake, parse_selection_config({}), 3).selection
    assert selection.pool == 11
    assert selection.removed["not embedded in pixels"] == 1
    assert "e" * 64 not in selection.sample_ids


def test_the_command_fails_with_what_is_left_after_each_filter(lake: Lake) -> None:
    names = fill(lake, n=10)
    label(lake, names[5:])
    with pytest.raises(InputError) as error:
        select_from_lake(lake, parse_selection_config({}), 8)
    assert "8 samples were asked for and 4 can be selected" in str(error.value)
    assert "10 in the pool, 5 without 5 labelled already, 4 without 1 copies of" in str(error.value)


def test_the_commands_number_wins_with_a_warning_and_writes_nothing(lake: Lake) -> None:
    fill(lake)
    before = lake.version()
    config = parse_selection_config({"n_samples": 12})
    made = select_from_lake(lake, config, 4)
    table = picks_table(made.rows)
    assert len(made.selection.picks) == table.num_rows == 4
    assert "n_samples: 12" in made.warnings[0]
    assert select_from_lake(lake, config, 12).warnings == ()
    assert select_from_lake(lake, parse_selection_config({}), 4).warnings == ()
    assert table.column_names[:4] == ["sample_id", "rank", "arm", "propensity"]
    assert table["why"][0].as_py().startswith("Picked because it is typical")
    assert lake.version() == before


def test_an_empty_lake_says_to_ingest_first(lake: Lake) -> None:
    with pytest.raises(InputError, match="no samples to select from"):
        select_from_lake(lake, parse_selection_config({}), 4)


def test_metadata_of_sidecars_and_measures_can_be_selected_by(lake: Lake) -> None:
    names = fill(lake)
    with lake.run(stage="test", round_id="0000") as run:
        rows = {"sample_id": names, "place": ["north", "south"] * 15, "raw": ["{}"] * 30}
        run.append("metadata", pa.table(rows))
        run.commit()
    strategies = [
        {
            "input": {"type": "METADATA", "key": "lightly.sharpness"},
            "strategy": {"type": "THRESHOLD", "threshold": 10, "operation": "BIGGER_EQUAL"},
        },
        {
            "input": {"type": "METADATA", "key": "place"},
            "strategy": {"type": "BALANCE", "target": {"north": 0.75, "south": 0.25}},
        },
    ]
    config = parse_selection_config({"strategies": strategies})
    selection = select_from_lake(lake, config, 8).selection
    rows_picked = [names.index(s) for s in selection.sample_ids]
    assert min(rows_picked) >= 10
    assert sum(r % 2 == 0 for r in rows_picked) == 6


def test_parameters_of_the_run_win_over_the_configuration(lake: Lake) -> None:
    fill(lake)
    config = loop_yaml(lake, proportion_samples=0.1)
    assert select(config=config, round_id="0000").n_selected == 3
    assert select(config=config, round_id="0001", n_samples=7).n_selected == 7
    select(config=config, round_id="0002", n_samples=4, strategy="random")
    arms = lake.read("selections", where="round_id == '0002'")["arm"].to_pylist()
    assert arms == ["random"] * 4
    with pytest.raises(InputError, match="strategy"):
        select(config=config, round_id="0003", strategy="best")


def test_rounds_draw_differently_and_repeatably() -> None:
    assert round_seed(0, "0001") == round_seed(0, "0001")
    assert len({round_seed(0, f"{i:04d}") for i in range(50)}) == 50


def test_the_stage_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, visionloop.stages.select, visionloop.selection.record\n"
        "heavy = {'sklearn', 'scipy', 'torch', 'torchvision', 'kserve', 'kfp', 'pyiceberg'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
