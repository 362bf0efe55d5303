"""A lake whose selection is spread over shards, and the same selection made by one task."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.selection.small_lake import CLASSES, NOW, deploy, fill, label, put
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.selection.engine import Pick, Selection
from visionloop.selection.joining import Joined, join
from visionloop.selection.material import read_material
from visionloop.selection.record import select_material
from visionloop.selection.spread_files import Spread, read_plan
from visionloop.stages.plan_selection import PlanSelectionOutputs, plan_selection
from visionloop.stages.select import configured, round_seed
from visionloop.stages.select_shard import select_shard

N = 900
SHARD = 250
SCORES = {"input": {"type": "SCORES", "score": "margin"}, "strategy": {"type": "WEIGHTS"}}
DIVERSE = {"input": {"type": "EMBEDDINGS"}, "strategy": {"type": "DIVERSITY"}}


def weights(key: str, strength: float = 1.0) -> dict[str, Any]:
    strategy = {"type": "WEIGHTS", "strength": strength}
    return {"input": {"type": "METADATA", "key": key}, "strategy": strategy}


def fill_many(root: str, n: int = N) -> Lake:
    """Write n samples of which half were predicted and ten labelled; copies, flags, other files."""
    lake = Lake.open(root, loop="small")
    names = fill(lake, n)
    deploy(lake, names[: n // 2])
    label(lake, names[5:15])
    more = [f"0{i:03x}x" for i in range(60)]  # in between the others, in a file of their own
    rows = [{"sample_id": s, "split": "pool", "sharpness": None, "ingested_at": NOW} for s in more]
    put(lake, "samples", rows)
    with lake.run(stage="infer", round_id="0000") as run:
        x = np.random.default_rng(5).normal(size=(60, 8)).astype(np.float32)
        run.append_embeddings("pixels", more[::-1], 3 * x)
        run.commit(outputs={"space": "pixels"})
    flag = {"subject_type": "sample", "kind": "near_duplicate", "stage": "ingest"}
    put(lake, "flags", [{"subject": names[i], **flag} for i in range(20, 40)])
    put(lake, "label_requests", [{"sample_id": names[50], "purpose": "training"}])
    return lake


def loop_yaml(lake: Lake, selection: dict[str, Any], **cluster: Any) -> str:
    section = {"select_shard_size": SHARD, "select_whole": 2000} | cluster
    settings = {"name": lake.loop, "lake": lake.uri, "classes": CLASSES}
    return json.dumps(settings | {"selection": selection, "cluster": section})


def planned(lake: Lake, selection: dict[str, Any], **cluster: Any) -> PlanSelectionOutputs:
    return plan_selection(config=loop_yaml(lake, selection, **cluster), round_id="0000")


def propose(lake: Lake, plan: PlanSelectionOutputs, order: slice = slice(None)) -> Spread:
    for shard in plan.shards[order]:
        select_shard(config=loop_yaml(lake, {}), round_id="0000", plan=plan.plan, shard=shard)
    return read_plan(lake, plan.plan)


def joined(lake: Lake, selection: dict[str, Any], **cluster: Any) -> Joined:
    plan = planned(lake, selection, **cluster)
    assert plan.n_shards == 4
    return join(lake, propose(lake, plan))


def propensities(picks: Iterable[Pick]) -> list[float]:
    """Each pick's propensity; -1 where chance decides and it is not known."""
    return [-1.0 if pick.propensity is None else pick.propensity for pick in picks]


def alone(lake: Lake, selection: dict[str, Any]) -> Selection:
    config = configured(_config(lake, selection), 0, "")
    material = read_material(lake, config, classes=CLASSES)
    return select_material(material, None, seed=round_seed(config.seed, "0000"), unattended=True)


def _config(lake: Lake, selection: dict[str, Any]) -> Any:
    return load_config(loop_yaml(lake, selection)).selection
