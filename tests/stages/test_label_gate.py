"""A round that collects wrong labels does not publish what it learned from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.labeling.trust.blobs import CLASSES, NOW, Blobs, blobs, label, lake_of
from tests.selection.small_lake import put
from visionloop.lake import Lake
from visionloop.lake.run import Run
from visionloop.stages.monitor import monitor
from visionloop.stages.monitor_labels import labels_told
from visionloop.stages.publish import PublishOutputs, publish
from visionloop.stages.watch import watch

KNOWN = 100


class Collecting:
    """A loop with right labels of some samples; those of the others are collected by a round."""

    def __init__(self, folder: Path, wrong: float, **blocking: Any) -> None:
        made = blobs(400, wrong, spread=0.15)
        first = np.arange(400) < KNOWN
        self.made: Blobs = replace(made, given=np.where(first, made.truth, made.given))
        self.lake: Lake = lake_of(folder, self.made, unlabelled=400 - KNOWN)
        self.config = json.dumps(
            {
                "name": "blobs",
                "lake": self.lake.uri,
                "classes": CLASSES,
                "sources": [{"uri": str(folder)}],
                "watch": {
                    "min_new_samples": 0, "max_days": 0, "block_publication": blocking,
                },
            }
        )  # fmt: skip

    def monitor(self) -> None:
        monitor(config=self.config)

    def collect(self) -> None:
        """Let the open round collect the labels of the other samples."""
        opened = self.lake.rounds.open("run", take_over=True)
        label(self.lake, self.made, range(KNOWN, 400), round_id=opened.round_id)

    def publish(self, model: str) -> PublishOutputs:
        opened = self.lake.rounds.open("run", take_over=True)
        row = {"model_id": model, "arm": "loop", "state": "passed", "trained_at": NOW}
        put(self.lake, "experiments", [row], opened.round_id)
        return self.publish_again(model)

    def publish_again(self, model: str) -> PublishOutputs:
        return publish(
            config=self.config, lake_version=self.lake.version(), model_id=model,
            model_uri=f"file:///{model}", passed=True,
        )  # fmt: skip

    def decisions(self, which: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.read(
            "decisions", where=f"decision == '{which}'"
        ).to_pylist()
        return sorted(rows, key=lambda row: row["decided_at"])

    def suspects(self) -> set[str]:
        rows = self.lake.read("flags", where="kind == 'label_suspect'")
        return set(rows["subject"].to_pylist())

    def told(self) -> list[tuple[str, int, int]]:
        """Return who judged labels, how many are doubted, and which look it was."""
        runs = self.lake.stage_runs().sort_by("sequence").to_pylist()
        held = [(run["stage"], json.loads(run["outputs"]).get("labels")) for run in runs]
        return [(stage, told["flagged"], told["look"]) for stage, told in held if told]


def test_a_round_with_many_wrong_labels_is_blocked_in_that_same_round(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.monitor()
    assert loop.publish("m1")[1:] == (True, "m1")
    loop.collect()
    assert watch(config=loop.config, dry_run=True).acts == "", "nobody has judged them yet"
    assert loop.publish("m2")[1:] == (False, "m1")
    (block,) = loop.decisions("block")
    assert (block["round_id"], block["run_id"], block["outcome"]) == ("0001", "run", "blocked")
    inputs = json.loads(block["inputs"])
    (rule,) = [one for one in inputs["rules"] if one["name"] == "label_suspects"]
    assert rule["n"] == 400 and rule["value"] > 0.25 and inputs["causes"] == ["label_suspects"]
    (_, refused) = loop.decisions("publish")
    assert refused["outcome"] == "blocked" and "400 checked labels are doubted" in refused["reason"]
    wrong = {s for s, bad in zip(loop.made.ids, loop.made.wrong, strict=True) if bad}
    assert len(loop.suspects() & wrong) > 0.8 * len(wrong)
    ended = loop.lake.rounds.get("0001")
    assert ended is not None and (ended.state, ended.outcome) == ("done", "kept")


def test_a_round_whose_labels_are_right_publishes_and_the_monitor_judges_them_no_more(
    tmp_path: Path,
) -> None:
    loop = Collecting(tmp_path, 0.02)
    loop.publish("m1")
    loop.collect()
    assert loop.publish("m2")[1:] == (True, "m2")
    assert loop.decisions("block") == []
    before = loop.told()
    assert [stage for stage, _, _ in before] == ["judge_labels", "judge_labels"]
    judged = labels_told(loop.lake)
    loop.monitor()
    assert loop.told() == [*before, ("monitor", *before[-1][1:])]
    assert labels_told(loop.lake) == judged, "taken over, with the state that it is of"


def test_a_publish_that_dies_and_starts_again_judges_and_blocks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.publish("m1")
    loop.collect()
    commit = Run.commit
    dying = iter([False, True, True, True])  # behind the labels, behind the block, at the end

    def commit_or_die(run: Run, **arguments: Any) -> str:
        if next(dying, False):
            raise KeyboardInterrupt
        return commit(run, **arguments)

    opened = loop.lake.rounds.open("run", take_over=True)
    row = {"model_id": "m2", "arm": "loop", "state": "passed", "trained_at": NOW}
    put(loop.lake, "experiments", [row], opened.round_id)
    monkeypatch.setattr(Run, "commit", commit_or_die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            loop.publish_again("m2")
    assert loop.publish_again("m2")[1:] == (False, "m1")
    assert len(loop.decisions("block")) == 1
    assert [look for _, _, look in loop.told()] == [1, 2]
    monkeypatch.undo()


def test_each_result_is_one_look_however_often_it_is_looked_at(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.monitor()
    loop.monitor()
    with loop.lake.run(stage="infer", round_id="0000") as run:  # another sample, no new label
        run.append_embeddings("base", ["f" * 64], loop.made.x[:1])
        run.commit(outputs={"space": "base"})
    loop.monitor()
    assert {look for _, _, look in loop.told()} == {1}
    loop.collect()
    for _ in range(2):
        loop.monitor()
        watch(config=loop.config)
    assert [look for _, _, look in loop.told()] == [1, 1, 1, 2, 2]
    (block,) = loop.decisions("block")
    assert "doubted" in block["reason"]


def test_where_no_rule_asks_for_doubted_labels_they_are_left_to_the_monitor(
    tmp_path: Path,
) -> None:
    loop = Collecting(tmp_path, 0.4, max_label_suspects=0)
    loop.collect()
    assert loop.publish("m1").published and loop.told() == []


def test_a_flag_of_a_doubted_label_blocks_where_the_rule_names_its_kind(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.02, max_label_suspects=0, flags=["label_suspect"])
    loop.collect()
    assert loop.publish("m1")[1:] == (False, "")
    assert "stand" in loop.decisions("block")[0]["reason"]


def test_what_a_person_has_excused_does_not_block_the_next_round(tmp_path: Path) -> None:
    from visionloop.config import load_config
    from visionloop.stages.watch_acts import unblock

    loop = Collecting(tmp_path, 0.4)
    loop.collect()
    assert not loop.publish("m1").published
    unblock(load_config(loop.config), loop.lake, "they are hard")
    assert loop.publish("m2").published
