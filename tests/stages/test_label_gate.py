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
from visionloop.config import load_config
from visionloop.errors import StaleRead, VisionloopError
from visionloop.labeling.trust import suspect_flags
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.run import Run
from visionloop.stages.monitor import monitor
from visionloop.stages.monitor_labels import check_labels, labels_told
from visionloop.stages.monitor_part import Look
from visionloop.stages.publish import PublishOutputs, publish
from visionloop.stages.watch import watch
from visionloop.stages.watch_acts import unblock

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

    def give(self, labels: Any) -> None:
        """Let the next round give every sample another label."""
        opened = self.lake.rounds.open("run", take_over=True)
        label(self.lake, replace(self.made, given=labels), range(400), round_id=opened.round_id)

    def correct(self) -> None:
        """Let the next round give every sample its right label."""
        self.give(self.made.truth)

    def stand(self, kind: str) -> None:
        """Let a flag about the loop stand."""
        row = {"subject": "pool", "subject_type": "loop", "kind": kind, "flagged_at": NOW}
        put(self.lake, "flags", [row])

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
    loop = Collecting(tmp_path, 0.4)
    loop.collect()
    assert not loop.publish("m1").published
    unblock(load_config(loop.config), loop.lake, "they are hard")
    assert loop.publish("m2").published


def test_what_a_person_has_excused_blocks_again_once_it_was_gone_where_no_watch_runs(
    tmp_path: Path,
) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.collect()
    assert not loop.publish("m1").published
    unblock(load_config(loop.config), loop.lake, "they are hard")
    loop.correct()
    assert loop.publish("m2").published and loop.publish("m3").published
    assert [row["outcome"] for row in loop.decisions("unblock")] == ["by_hand", "excuse_ended"]
    assert "0 of 400 checked labels are doubted" in loop.decisions("unblock")[1]["reason"]
    loop.give(loop.made.given)
    assert not loop.publish("m4").published and len(loop.decisions("block")) == 2


@pytest.mark.parametrize("most", [0, 0.2])
def test_labels_that_cannot_be_judged_any_more_lift_no_block_of_their_flags(
    tmp_path: Path, most: float
) -> None:
    loop = Collecting(tmp_path, 0.1, max_label_suspects=most, flags=["label_suspect"])
    loop.collect()
    assert not loop.publish("m1").published
    loop.give(np.random.default_rng(0).permutation(loop.made.given))
    assert not loop.publish("m2").published
    assert loop.suspects() == set() and labels_told(loop.lake)["unchecked"] == 400
    assert watch(config=loop.config).acts == "" and loop.decisions("unblock") == []
    loop.correct()
    assert loop.publish("m3").published


def test_what_was_judged_adds_up_for_who_checks_the_lake(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.collect()
    loop.publish("m1")
    (counted,) = [one for one in check(loop.lake) if one.check.startswith("stage_runs: in = ")]
    assert (counted.checked, counted.examples) == (1, [])


@pytest.mark.parametrize("blocking", [{}, {"max_label_suspects": 0, "flags": ["label_suspect"]}])
def test_a_round_whose_labels_were_corrected_is_published_where_no_watch_runs(
    tmp_path: Path, blocking: dict[str, Any]
) -> None:
    loop = Collecting(tmp_path, 0.4, **blocking)
    loop.collect()
    assert not loop.publish("m1").published
    loop.correct()
    assert loop.publish("m2")[1:] == (True, "m2")
    (lifted,) = loop.decisions("unblock")
    assert (lifted["round_id"], lifted["outcome"]) == ("0001", "lifted")
    assert ("0 of 400 checked" if not blocking else "no flag stands") in lifted["reason"]
    assert json.loads(lifted["inputs"])["rules"], "with what it was decided by"
    assert loop.publish("m3").published and len(loop.decisions("unblock")) == 1


def test_a_block_of_doubted_labels_ends_where_their_rule_is_switched_off(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.collect()
    assert not loop.publish("m1").published
    off = json.loads(loop.config)
    off["watch"]["block_publication"] = {"max_label_suspects": 0}
    loop.config = json.dumps(off)
    assert loop.publish("m2").published
    assert "is off now" in loop.decisions("unblock")[0]["reason"]


def test_labels_that_are_right_again_lift_nothing_that_something_else_would_block(
    tmp_path: Path,
) -> None:
    loop = Collecting(tmp_path, 0.4, flags=["pool_exhausted"])
    loop.collect()
    assert not loop.publish("m1").published
    loop.correct()
    loop.stand("pool_exhausted")
    assert not loop.publish("m2").published
    # Errors of the server are counted by a watch alone.
    errors = json.loads(loop.config)
    errors["watch"]["block_publication"] = {"max_error_rate": 0.1}
    loop.config = json.dumps(errors)
    assert not loop.publish("m3").published and loop.decisions("unblock") == []


def test_what_a_watch_blocked_for_another_reason_is_left_to_a_watch(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.02, flags=["pool_exhausted"])
    loop.collect()
    loop.stand("pool_exhausted")
    assert loop.publish("m1").published, "only doubted labels are judged here"
    assert "pool" in watch(config=loop.config).acts
    assert not loop.publish("m2").published and loop.decisions("unblock") == []


def test_what_a_publication_found_of_newer_labels_is_not_overwritten_by_an_older_monitor(
    tmp_path: Path,
) -> None:
    loop = Collecting(tmp_path, 0.4)
    loop.monitor()
    with loop.lake.run(stage="monitor") as run:
        loop.collect()
        assert not loop.publish("m1").published
        doubted, told = loop.suspects(), loop.told()
        with pytest.raises(StaleRead, match="judged the labels"):
            check_labels(Look(loop.lake, run, load_config(loop.config), "base", NOW))
    assert loop.suspects() == doubted and loop.told() == told and len(doubted) > 100


def test_nor_where_it_is_found_while_the_monitor_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Collecting(tmp_path, 0.4)
    judge, told = suspect_flags.judge_labels, []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        found = judge(*arguments)
        loop.collect()
        assert not loop.publish("m1").published
        told.extend(loop.told())
        return found

    monkeypatch.setattr(suspect_flags, "judge_labels", overtaken)
    with loop.lake.run(stage="monitor") as run, pytest.raises(StaleRead, match="judged"):
        check_labels(Look(loop.lake, run, load_config(loop.config), "base", NOW))
    assert len(loop.suspects()) > 100 and loop.told() == told != []
    assert watch(config=loop.config, dry_run=True).acts == "", "the block stands"


def test_labels_that_cannot_be_judged_are_an_error_and_publish_goes_on_when_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Collecting(tmp_path, 0.02)
    loop.collect()

    def short_of_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression.fit", short_of_memory)
    with pytest.raises(VisionloopError, match="nothing is published before they are") as failed:
        loop.publish("m1")
    assert "out of memory" in failed.value.what and "cluster.memory" in failed.value.remedy
    assert loop.told() == [] and loop.decisions("publish") == []
    monkeypatch.undo()
    assert loop.publish_again("m1")[1:] == (True, "m1")


def test_rounds_of_a_program_that_counted_no_looks_count_as_looks(tmp_path: Path) -> None:
    loop = Collecting(tmp_path, 0.4)
    with loop.lake.run(stage="monitor", round_id="0006") as run:
        told = {"in": 100, "ok": 90, "flagged": 10, "unchecked": 0}
        run.commit(outputs={"labels": told})
    assert labels_told(loop.lake)["look"] == 7
    loop.collect()
    loop.monitor()
    assert labels_told(loop.lake)["look"] == 8
