"""A selection spread over shards of the embeddings picks as one task does, or within its bound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.selection.small_lake import CLASSES, NOW, fill, ids, put
from tests.selection.spreading import (
    DIVERSE,
    SCORES,
    alone,
    fill_many,
    joined,
    loop_yaml,
    planned,
    propensities,
    propose,
    weights,
)
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake, parts
from visionloop.selection import proposals
from visionloop.selection.advice import Past, advise
from visionloop.selection.engine import Selection
from visionloop.selection.joining import join
from visionloop.selection.lots import lots
from visionloop.selection.spread_files import read_plan
from visionloop.stages.plan_selection import plan_selection
from visionloop.stages.select import select
from visionloop.stages.select_shard import select_shard

N = 900


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return fill_many(str(tmp_path_factory.mktemp("spread") / "lake"), N)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_the_parts_of_a_space_are_each_of_its_vectors_once(filled: Lake, number: int) -> None:
    expected = dict(zip(*filled.embeddings("pixels"), strict=True))
    version = filled.version()
    assert parts.rows_of_space(filled, "pixels", version) == len(expected) == N + 63
    seen = []
    for part in range(number):
        names, x = parts.read_part(filled, "pixels", version, part, number)
        assert names == sorted(names)
        for name, vector in zip(names, x, strict=True):
            assert (vector == expected[name]).all()
        seen += names
    assert sorted(seen) == sorted(expected)


def test_a_part_is_read_from_its_own_files(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = parts._open

    def noted(table: Any, file: Any) -> Any:
        opened.append(file.path)
        return real(table, file)

    monkeypatch.setattr(parts, "_open", noted)
    monkeypatch.setattr(Lake, "embeddings", None)
    monkeypatch.setattr(Lake, "embedded", None)
    files = []
    for part in range(16):  # 963 rows in two files: one part at most lies in both
        opened.clear()
        parts.read_part(filled, "pixels", filled.version(), part, 16)
        files.append(len(set(opened)))
    assert sorted(files) in ([1] * 16, [1] * 15 + [2])


@pytest.mark.parametrize(
    "selection",
    [
        {"strategy": "uncertainty", "n_samples": 25},
        {"strategy": "uncertainty", "n_samples": 25, "score": "entropy", "random_share": 0.5},
        {"strategy": "random", "n_samples": 30},
        {"strategies": [SCORES, weights("sharpness", 0.5)], "n_samples": 20},
        {"strategies": [weights("sharpness", -1.0)], "proportion_samples": 0.05},
        {
            "strategies": [
                {"input": {"type": "EMBEDDINGS", "query": ["label:cat"]},
                 "strategy": {"type": "SIMILARITY"}},
                {"input": {"type": "RANDOM"}, "strategy": {"type": "WEIGHTS"}},
                {"input": {"type": "METADATA", "key": "sharpness"},
                 "strategy": {"type": "THRESHOLD", "threshold": 300, "operation": "BIGGER"}},
            ],
            "n_samples": 20,
        },
        {"strategies": [SCORES], "n_samples": 20, "dialect": "lightly"},
        # Nobody knows more than half of them: the median of all decides whom the rest are like.
        {"strategies": [SCORES], "n_samples": 124, "random_share": 0.0},
    ],
)  # fmt: skip
def test_what_each_sample_has_for_itself_is_picked_as_by_one_task(
    filled: Lake, selection: dict[str, Any]
) -> None:
    spread, one = joined(filled, selection).selection, alone(filled, selection)
    assert [(p.sample_id, p.rank, p.arm, p.nearest_chosen) for p in spread.picks] == [
        (p.sample_id, p.rank, p.arm, p.nearest_chosen) for p in one.picks
    ]
    assert propensities(spread.picks) == pytest.approx(propensities(one.picks), rel=1e-12)
    for a, b in zip(spread.picks, one.picks, strict=True):
        assert dict(a.objectives) == pytest.approx(dict(b.objectives), abs=1e-9)
    assert dict(spread.removed) == dict(one.removed) and len(one.removed) >= 3
    assert (spread.pool, spread.eligible, spread.requested) == (
        one.pool, one.eligible, one.requested,
    )  # fmt: skip
    assert dict(spread.strengths) == dict(one.strengths)
    assert set(spread.flags) - {"selected_in_shards"} == set(one.flags)


@pytest.mark.parametrize("limit", [None, 0.5])
def test_diversity_is_within_its_bound(filled: Lake, limit: float | None) -> None:
    line: dict[str, Any] = {**DIVERSE, "strategy": {"type": "DIVERSITY"}}
    if limit:
        line["strategy"] |= {"stopping_condition_minimum_distance": limit}
    selection = {"strategies": [line], "n_samples": 40}
    found, one = joined(filled, selection), alone(filled, selection)
    made = found.selection
    assert len(made.picks) == 40 and dict(made.removed) == dict(one.removed)
    names, x = filled.embeddings("pixels")
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    place = {name: i for i, name in enumerate(names)}
    labelled = [place[s] for s in filled.read("labels")["sample_id"].to_pylist()]

    def reach(picks: tuple[str, ...]) -> float:
        centres = x[[*labelled, *(place[s] for s in picks)]]
        pool = [i for i, name in enumerate(names) if not name.startswith("f")]
        squared = ((x[pool][:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1)
        return float(np.sqrt(squared.max()))

    assert found.bound is not None and found.least is not None
    assert found.least - 1e-5 <= reach(made.sample_ids) <= max(found.bound, made.radius) + 1e-5
    assert made.radius_at_most and not one.radius_at_most
    assert reach(made.sample_ids) <= made.radius + 1e-5 <= made.radius_before + 1e-4
    assert made.radius_before == pytest.approx(one.radius_before, abs=1e-5)
    assert reach(made.sample_ids) < 1.25 * reach(one.sample_ids)
    drawn = [p for p in made.picks if p.arm == "random"]
    assert [p.sample_id for p in drawn] == [p.sample_id for p in one.picks if p.arm == "random"]


def test_scores_and_distances_together_pick_by_the_same_rule(filled: Lake) -> None:
    schedule = {"typicality_until": 0, "uncertainty_from": 1}
    found = joined(filled, {"n_samples": 30, "schedule": schedule})
    one = alone(filled, {"n_samples": 30, "schedule": schedule})
    assert dict(found.selection.strengths) == dict(one.strengths) == {"margin": 1, "diversity": 0.5}
    made_in_shards = found.selection
    assert found.bound is None and made_in_shards.radius_at_most
    assert one.radius <= made_in_shards.radius + 1e-5 == made_in_shards.radius_before + 1e-5
    told = advise(found.material.config, made_in_shards, Past())
    assert f"pixels: at most {told.radius:.3f} with this batch" in " ".join(told.reasons)
    mine, theirs = (
        [math.prod((p.objectives[n] or 0) ** s for n, s in one.strengths.items())
         for p in made.picks if p.arm == "selected"]
        for made in (found.selection, one)
    )  # fmt: skip
    # The greedy rule's products, in the order of the picks: hardly below those over everybody.
    assert len(mine) == len(theirs) and np.mean(mine) > 0.97 * np.mean(theirs)


def test_copies_in_different_shards_are_not_both_picked(lake: Lake) -> None:
    names = ids(400)
    x = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    x[300] = x[10]  # far apart in the table, and the most different of all
    x[[10, 300]] = [20, 0, 0, 0, 0, 0, 0, 0]
    rng = np.random.default_rng(1)
    prints = [rng.bytes(32) for _ in names]
    prints[250] = prints[20]
    rows = [
        {"sample_id": s, "split": "pool", "fingerprint": p, "ingested_at": NOW,
         "sharpness": 9.0 if i in {10, 300, 20, 250} else 1.0}
        for i, (s, p) in enumerate(zip(names, prints, strict=True))
    ]  # fmt: skip
    put(lake, "samples", rows)
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("pixels", names, x)
        run.commit(outputs={"space": "pixels"})
    made = joined_of(lake, {"strategies": [weights("sharpness")], "n_samples": 4})
    assert made.sample_ids[:2] == (names[10], names[20])
    assert not {names[300], names[250]} & set(made.sample_ids)


def joined_of(lake: Lake, selection: dict[str, Any], size: int = 100) -> Selection:
    return joined(lake, selection, select_shard_size=size).selection


def test_neither_the_order_of_shards_nor_a_second_try_changes_what_is_picked(
    filled: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = {"strategy": "diversity", "n_samples": 21}
    plan = planned(filled, selection)
    spread = propose(filled, plan, slice(None, None, -1))
    first = join(filled, spread).selection.picks
    # All have proposed: nothing is listed, and a shard that is started all the same reads nothing.
    again = planned(filled, selection)
    assert (again.plan, again.n_shards) == (plan.plan, 0)
    monkeypatch.setattr(parts, "read_part", None)
    propose(filled, plan)
    assert join(filled, spread).selection.picks == first


def test_a_shard_that_died_half_way_is_listed_again(
    filled: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = {"strategy": "uncertainty", "n_samples": 22}
    plan = planned(filled, selection)
    real = proposals.write_table

    def dies(lake: Lake, name: str, table: pa.Table) -> None:
        if name.endswith(proposals.PROPOSED) and plan.shards[1] in name:
            raise MemoryError
        real(lake, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(proposals, "write_table", dies)
        with pytest.raises(MemoryError):
            propose(filled, plan)
    with pytest.raises(VisionloopError, match="not there") as told:
        join(filled, read_plan(filled, plan.plan))
    assert "Start the pipeline again" in told.value.remedy
    again = planned(filled, selection)
    assert again.shards == plan.shards[1:]
    made = join(filled, propose(filled, again)).selection
    assert made.sample_ids == alone(filled, selection).sample_ids


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        ({"strategy": "typicality"}, "`typicality` looks at all embeddings at once"),
        ({"strategy": "badge"}, "`badge` looks at all"),
        ({"strategy": "auto"}, "`auto` takes typical samples up to 10 labels a class"),
        (
            {"strategies": [DIVERSE, {"input": {"type": "PREDICTIONS"},
                                      "strategy": {"type": "BALANCE", "distribution": "UNIFORM"}}]},
            "BALANCE looks at all",
        ),
        ({"strategies": [DIVERSE, DIVERSE]}, "DIVERSITY is there twice"),
        ({"strategy": "diversity", "n_samples": 200}, "200 picks are too many beside shards of"),
    ],
)  # fmt: skip
def test_what_needs_everybody_is_done_by_one_task_where_it_may_hold_them(
    filled: Lake, selection: dict[str, Any], why: str, tmp_path: Path
) -> None:
    page: Any = type("Page", (), {"path": str(tmp_path / "page.md"), "uri": "", "metadata": {}})
    config = loop_yaml(filled, selection)
    plan = plan_selection(config=config, round_id="0000", page=page)
    assert plan == ("", 0, [])
    assert why in Path(page.path).read_text()


def test_few_embeddings_and_none_make_no_shard(filled: Lake, lake: Lake) -> None:
    selection = {"strategy": "diversity", "n_samples": 5}
    assert planned(filled, selection, select_shard_size=N + 63).n_shards == 0
    assert planned(filled, selection, select_shard_size=N + 62).n_shards == 2
    assert plan_selection(config=loop_yaml(lake, selection)).n_shards == 0


def test_a_round_selects_once_and_leaves_no_file(lake: Lake) -> None:
    fill(lake, 400)
    lake.rounds.open("run-1")
    config = loop_yaml(lake, {"strategy": "diversity", "n_samples": 8}, select_shard_size=150)
    before = lake.version()
    plan = plan_selection(config=config, lake_version=before, round_id="0000")
    for shard in plan.shards:
        select_shard(config=config, round_id="0000", plan=plan.plan, shard=shard)
    made = select(config=config, lake_version=before, round_id="0000", plan=plan.plan)
    again = select(config=config, lake_version=before, round_id="0000", plan=plan.plan)
    assert made.n_selected == again.n_selected == lake.read("selections").num_rows == 8
    assert plan_selection(config=config, round_id="0000").n_shards == 0
    assert not [info for info in lake.storage.list(lake.path("shards", lake.loop))]
    held = lake.rounds.get("0000")
    assert held is not None
    told = held.counts["selection"]
    assert told["shards"]["number"] == 3 and told["shards"]["bound"] > told["shards"]["least"] > 0
    assert told["eligible"] == 399 and told["removed"] == {"copies of the holdout": 1}
    runs = lake.stage_runs(where="stage == 'select'").to_pylist()
    assert len({row["version"] for row in runs}) == 1


def test_a_shard_of_the_holdout_alone_proposes_nobody(filled: Lake) -> None:
    plan = planned(filled, {"strategy": "diversity", "n_samples": 1}, select_shard_size=3)
    held = [
        shard
        for i, shard in enumerate(plan.shards)
        if all(
            name.startswith("f")
            for name in parts.read_part(filled, "pixels", filled.version(), i, len(plan.shards))[0]
        )
    ]
    config = loop_yaml(filled, {})
    told = select_shard(config=config, round_id="0000", plan=plan.plan, shard=held[0])
    assert told == (0, 0, 0)
    assert proposals.read_proposed(filled, held[0]).table.schema.field("vector").type == pa.binary(
        32
    )
    with pytest.raises(InputError, match="has no shard 'x'"):
        select_shard(config=config, round_id="0000", plan=plan.plan, shard="x")


def test_a_detectors_unknown_images_have_their_quota_in_shards_too(lake: Lake) -> None:
    names = fill(lake, 500)
    model = {"model_id": "m", "arm": "loop", "state": "in_service", "classes": CLASSES}
    put(lake, "experiments", [{**model, "uri": "", "trained_at": NOW}])
    rng = np.random.default_rng(4)
    box = dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), 1.0) | {"label": "cat"}
    rows = [
        {"sample_id": s, "model_id": "m", "boxes": [{**box, "scores": rng.random(3).tolist()}]}
        | ({"boxes": []} if i % 3 == 0 else {})
        for i, s in enumerate(names)
    ]
    put(lake, "predictions", rows)
    marked = names[100:200]
    put(lake, "labels", [
        {"sample_id": s, "task": "detection", "boxes": [{**box, "scores": []}], "created_at": NOW}
        for s in marked
    ])  # fmt: skip
    selection = {"strategy": "uncertainty", "n_samples": 20, "unknown_share": 0.2}
    made, one = joined_of(lake, selection, size=130), alone(lake, selection)
    arms = [pick.arm for pick in made.picks]
    assert arms == [pick.arm for pick in one.picks] and arms.count("unknown") == 4
    assert made.removed["labelled already"] == one.removed["labelled already"] == len(marked)
    assert not set(made.sample_ids) & set(marked)
    empty = {s for i, s in enumerate(names) if i % 3 == 0}
    assert {pick.sample_id for pick in made.picks if pick.arm == "unknown"} <= empty
    for arm in ("selected", "random"):
        assert [p.sample_id for p in made.picks if p.arm == arm] == [
            p.sample_id for p in one.picks if p.arm == arm
        ]


def test_lots_are_uniform_and_depend_on_the_sample_alone() -> None:
    names = ids(4000)
    drawn = lots(names, 7)
    assert (lots(names[100:110], 7) == drawn[100:110]).all()
    assert (lots(["b", "a"], 7) == lots(["a", "b"], 7)[::-1]).all()
    assert drawn.min() >= 0 and drawn.max() < 1 and len(set(drawn)) == 4000
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 44  # chi-squared with 19 degrees, p = .001
    assert abs(np.corrcoef(drawn, lots(names, 8))[0, 1]) < 0.06
    assert abs(np.corrcoef(drawn, lots(names, 7, 1))[0, 1]) < 0.06
