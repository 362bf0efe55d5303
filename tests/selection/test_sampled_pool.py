"""What needs everybody at once is selected from a uniform sample of a pool too large for one task.

Where the sample holds all that is eligible, the picks are those of one task.
"""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.selection.small_lake import NOW, ids, put, vectors
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
from visionloop.errors import InputError
from visionloop.lake import Lake, parts
from visionloop.selection import harvested, inputs, sampled
from visionloop.selection.config import SelectionConfig
from visionloop.selection.engine import Selection
from visionloop.selection.joining import join
from visionloop.selection.lots import lots
from visionloop.selection.pool import Pool
from visionloop.selection.spread_files import Spread
from visionloop.stages.plan_selection import plan_selection
from visionloop.stages.select import round_seed, select
from visionloop.stages.select_shard import select_shard

N = 300
ALL = {"select_shard_size": 95, "select_whole": 362}  # of 363 embeddings, less of them eligible
FEW = {"select_shard_size": 95, "select_whole": 120}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """300 samples and 60 others, harvested confidences, metadata, and a second space."""
    lake = fill_many(str(tmp_path_factory.mktemp("sampled") / "lake"), N)
    names, rng = ids(N), np.random.default_rng(2)
    asked = [*names[3:100:3], *names[200:230], "not in the lake"]
    rows = []
    for time in range(2):  # the newest counts
        for i, name in enumerate(asked):
            margin, entropy = rng.random(2)
            rows.append(
                {"event_id": f"{time}-{i}", "row": 0, "occurred_at": NOW + timedelta(hours=time),
                 "sample_id": name, "margin": margin if i % 7 else None, "entropy": entropy}
            )  # fmt: skip
    put(lake, "confidences", [*rows, {"event_id": "x", "occurred_at": NOW, "margin": 0.9}])
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("other", names[:290], vectors(290, seed=7))
        run.commit(outputs={"space": "pixels"})
    return lake


def line(kind: str, **more: Any) -> dict[str, Any]:
    return {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": kind, **more}}


def scored(score: str, kind: str = "WEIGHTS", **more: Any) -> dict[str, Any]:
    return {"input": {"type": "SCORES", "score": score}, "strategy": {"type": kind, **more}}


def assert_same(made: Selection, one: Selection) -> None:
    assert [(p.sample_id, p.arm, p.nearest_chosen) for p in made.picks] == [
        (p.sample_id, p.arm, p.nearest_chosen) for p in one.picks
    ]
    assert propensities(made.picks) == pytest.approx(propensities(one.picks), rel=1e-12)
    for a, b in zip(made.picks, one.picks, strict=True):
        assert dict(a.objectives) == pytest.approx(dict(b.objectives), abs=1e-9)
    assert (made.pool, made.eligible, made.requested) == (one.pool, one.eligible, one.requested)
    assert made.pool == made.eligible + sum(made.removed.values())
    assert dict(made.strengths) == dict(one.strengths)
    assert set(made.flags) - {"selected_in_shards"} == set(one.flags)
    assert one.radius <= made.radius + 1e-5


@pytest.mark.parametrize(
    "selection",
    [
        {},  # the default, which takes typical samples and listens to production
        {"strategy": "badge"},
        {
            "strategies": [
                line("TYPICALITY"),
                line("NEAR_DUPLICATES", distance=0.3),
                {"input": {"type": "METADATA", "key": "width"},
                 "strategy": {"type": "BALANCE", "target": {"640": 0.5}}},
                {**DIVERSE, "input": {"type": "EMBEDDINGS", "space": "other"}},
            ]
        },
        {
            "strategies": [
                scored("vote_entropy"),
                scored("vote_entropy", "THRESHOLD", operation="BIGGER", threshold=0.1),
                {"input": {"type": "METADATA", "key": "sharpness"},
                 "strategy": {"type": "WEIGHTS", "target_range": {"max_sum": 900}}},
            ]
        },
    ],
)  # fmt: skip
def test_a_sample_of_everybody_is_selected_from_as_by_one_task(
    wide: Lake, selection: dict[str, Any]
) -> None:
    given = {"n_samples": 20, **selection}
    found = joined(wide, given, **ALL)
    one = alone(wide, given)
    assert_same(found.selection, one)
    assert found.candidates == found.of and dict(found.selection.removed) == dict(one.removed)
    if not found.selection.radius_at_most:
        assert found.selection.radius == pytest.approx(one.radius, abs=1e-5)


@pytest.fixture(scope="module")
def wide(filled: Lake) -> Lake:
    """The same lake with the widths of its images, of labelled ones, too."""
    rows = filled.read("samples")
    at = rows.schema.get_field_index("width")
    widths = pa.array([640 if i % 4 else 1280 for i in range(rows.num_rows)], pa.int32())
    with filled.run(stage="test", round_id="0000") as run:
        rows = rows.set_column(at, rows.schema.field(at), widths)
        run.replace("samples", rows.drop_columns(["round_id", "run_id"]), "round_id == '0000'")
        run.commit()
    return filled


@pytest.mark.parametrize("most", [10_000, 11])
@pytest.mark.parametrize(
    "selection",
    [
        {"strategies": [scored("deployed_margin"), weights("sharpness", 0.5)]},
        {
            "strategies": [
                scored("similar_deployed_entropy", strength=2),
                SCORES,
                scored("similar_deployed_margin", "THRESHOLD", operation="SMALLER", threshold=0.6),
            ]
        },
    ],
)
def test_harvested_confidences_tell_shards_what_they_tell_one_task(
    filled: Lake, selection: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "HARVESTED", most)
    monkeypatch.setattr(harvested, "HARVESTED", most)
    given = {"n_samples": 25, "seed": most, **selection}
    assert_same(joined(filled, given, **FEW).selection, alone(filled, given))


def test_the_default_is_spread_once_uncertainty_decides(filled: Lake) -> None:
    schedule = {"typicality_until": 0, "uncertainty_from": 1}
    given = {"n_samples": 20, "schedule": schedule}
    plan = planned(filled, given, **FEW)
    spread = propose(filled, plan)
    made, one = join(filled, spread).selection, alone(filled, given)
    assert not spread.sample and spread.harvested is not None
    assert len(spread.harvested.sample_ids) == len(set(spread.harvested.sample_ids)) < 63
    strengths = {"margin": 1, "diversity": 0.5, "deployed_margin": 0.5}
    assert made.strengths == one.strengths == strengths | {"similar_deployed_margin": 0.5}


def test_of_a_pool_too_large_the_samples_of_the_smallest_lots_are_selected_from(
    filled: Lake, tmp_path: Path
) -> None:
    given = {"n_samples": 20, "seed": 4}
    plan = planned(filled, given, **FEW)
    found = join(filled, propose(filled, plan, slice(None, None, -1)))
    made, one = found.selection, alone(filled, given)
    assert (found.candidates, found.of) == (120, one.eligible) and made.eligible == one.eligible
    assert made.flags[:2] == ("selected_in_shards", "sampled_pool")
    assert dict(made.removed) == dict(one.removed)
    # The random share is that of one task, its propensity that of the whole pool.
    drawn, of_one = ([p for p in s.picks if p.arm == "random"] for s in (made, one))
    assert [p.sample_id for p in drawn] == [p.sample_id for p in of_one] and len(drawn) == 2
    assert {p.propensity for p in drawn} == {2 / one.eligible}
    assert {p.propensity for p in made.picks if p.arm == "selected"} == {None}
    labelled = set(found.material.labelled.sample_ids)  # coverage must know them
    everyone = set(joined(filled, given, **ALL).material.pool.sample_ids) - labelled
    assert len(everyone) == one.eligible
    by_lot = sorted(everyone, key=lambda name: lots([name], round_seed(4, "0000"), 1)[0])
    assert set(found.material.pool.sample_ids) == {*by_lot[:120], *labelled}
    assert len({p.sample_id for p in made.picks}) == 20
    page: Any = type("Page", (), {"path": str(tmp_path / "page.md"), "uri": "", "metadata": {}})
    config = loop_yaml(filled, given, **FEW)
    select(config=config, round_id="0000", plan=plan.plan, page=page)
    shown = Path(page.path).read_text()
    assert f"120 of {one.eligible} eligible images were selected among, a uniform sample" in shown
    assert "`auto` takes typical samples up to 10 labels a class" in shown
    runs = filled.stage_runs(where="stage == 'select'").to_pylist()
    told = json.loads(runs[-1]["outputs"])
    assert "sampled_pool" in told["flags"] and told["shards"]["sample_of"] == one.eligible
    with filled.run(stage="test", round_id="0000") as run:  # as it was
        nothing = filled.read("selections").slice(0, 0).drop_columns(["round_id", "run_id"])
        run.replace("selections", nothing, "round_id == '0000'")
        run.commit()


def test_who_lies_near_others_of_the_sample_is_counted_and_the_propensity_knows(
    filled: Lake,
) -> None:
    given = {"strategies": [line("TYPICALITY"), line("NEAR_DUPLICATES", distance=0.5)]}
    found = joined(filled, {"n_samples": 20, **given}, **FEW)
    made = found.selection
    name = "near duplicates of others (distance up to 0.5) of the sample"
    assert made.removed[name] > 3 and made.pool == made.eligible + sum(made.removed.values())
    drawn = [p for p in made.picks if p.arm == "random"]
    left = found.candidates - made.removed[name]
    # In the sample, and drawn from who is left of it.
    assert drawn[0].propensity == pytest.approx(found.candidates / found.of * len(drawn) / left)


def test_everybody_is_in_the_sample_and_drawn_with_the_same_chance(lake: Lake) -> None:
    sizes, number, seeds = (20, 60, 100), 6, 120
    names = ids(sum(sizes))
    starts = np.cumsum([0, *sizes])
    pools = [Pool.build(names[a:b], embeddings={"e": vectors(b - a)}) for a, b in pairwise(starts)]
    held, drawn = np.zeros(len(names)), np.zeros(len(names))
    place = {name: i for i, name in enumerate(names)}
    for seed in range(seeds):
        config = SelectionConfig(space="e")
        spread = Spread(
            name="plan",
            config=config,
            classes=(),
            task="",
            version="",
            parts=3,
            most=1,
            seed=seed,
            known={},
            labelled=frozenset(),
            harvested=None,
            cut=False,
            sample=45,
            why="why",
            predicted=True,
        )
        told = [
            sampled.name_sample(lake, spread, shard, pool)
            for shard, pool in zip(spread.shards, pools, strict=True)
        ]
        known_to = min(lot for _, lot in told)
        found = sampled.read_sample(lake, spread, [table for table, _ in told], known_to, [])
        assert found.sample_ids == sorted(found.sample_ids) and found.size == len(found.sample_ids)
        assert found.size <= 45
        first = np.argsort(lots(found.sample_ids, seed, 1))[:number]
        held[[place[name] for name in found.sample_ids]] += 1
        drawn[[place[found.sample_ids[i]] for i in first]] += 1
    chance = number / len(names)
    deviation = (drawn - seeds * chance) ** 2 / (seeds * chance * (1 - chance))
    assert deviation.sum() < 253  # chi-squared with 179 degrees of freedom, p = .0002
    by_shard = [held[a:b].mean() for a, b in pairwise(starts)]
    assert np.ptp(by_shard) < 0.15 * np.mean(by_shard)


def test_more_picks_than_half_of_what_one_task_may_hold_are_refused(filled: Lake) -> None:
    with pytest.raises(InputError, match="61 picks are too many") as told:
        planned(filled, {"n_samples": 61}, **FEW)
    assert "cluster.select_whole" in told.value.remedy
    assert planned(filled, {"n_samples": 60}, **FEW).n_shards == 4


def test_a_shard_that_names_a_sample_holds_who_is_eligible(filled: Lake) -> None:
    config = loop_yaml(filled, {"n_samples": 9, "strategy": "typicality"}, **FEW)
    plan = plan_selection(config=config, round_id="0000")
    told = [
        select_shard(config=config, round_id="0000", plan=plan.plan, shard=shard)
        for shard in plan.shards
    ]
    assert all(one.n_candidates == min(82, one.n_eligible) for one in told)
    assert sum(one.n_eligible for one in told) == alone(filled, {"n_samples": 9}).eligible


def test_the_smallest_values_of_a_column_are_found_a_batch_at_a_time(filled: Lake) -> None:
    held = filled.read("confidences", columns=["sample_id"])["sample_id"].to_pylist()
    names = sorted({name for name in held if name})
    version = filled.version()
    assert parts.smallest(filled, "confidences", "sample_id", 7, version) == (names[:7], True)
    assert parts.smallest(filled, "confidences", "sample_id", 99, version) == (names, False)
