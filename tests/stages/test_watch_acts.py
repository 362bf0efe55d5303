"""On real lakes the watch raises the random share, blocks publication and rolls back, each once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.monitoring.artifacts import Metrics
from tests.selection.small_lake import CLASSES, deploy, fill, label, put
from tests.stages.acting_loop import BACK, NOW, ActingLoop, worse_loop
from visionloop.cli import main
from visionloop.cli.run import _published
from visionloop.config import load_config
from visionloop.lake import Lake
from visionloop.stages.publish import publish
from visionloop.stages.rollback import rollback
from visionloop.stages.select import select
from visionloop.stages.watch_service import _seen_before

# Runs a watch that is killed at a point: before its rows are visible, before the model moves, or
# after it has moved and before that is written.
KILLED = """
import os, signal, sys
from visionloop.lake.run import Run
import visionloop.stages.rollback as rolling
from visionloop.stages.watch import watch
config, point = sys.argv[1:]
commit = Run.commit
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def dying(run, **arguments):
    return die() if (run._stage, point) in DEATHS else commit(run, **arguments)
DEATHS = {("watch", "before"), ("rollback", "moved")}
Run.commit = dying
if point == "decided":
    rolling.roll_back_as_decided = die
watch(config=config, run_id="r1")
"""


@pytest.fixture
def loop(tmp_path: Path) -> ActingLoop:
    return ActingLoop(tmp_path)


@pytest.fixture
def worse(tmp_path: Path) -> ActingLoop:
    """Return a loop whose model in service, m2, is worse than m1 was."""
    return worse_loop(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said_of_the_publication(loop: ActingLoop) -> str:
    return _published(load_config(loop.config), loop.lake.uri)


def test_doubted_labels_block_publication_until_they_are_good_again(loop: ActingLoop) -> None:
    loop.publish("m1")
    loop.labels_judged(ok=200, flagged=100)
    found = loop.watch()
    assert "Publication is blocked: 100 of 300 checked labels are doubted" in found.acts
    assert loop.watch().acts == ""
    assert loop.decisions("block", "unblock") == [("block", "blocked", "test")]

    done = loop.publish("m2")
    assert done[1:] == (False, "m1") and loop.in_service() == ("m1", "")
    assert loop.states() == {"m1": "in_service", "m2": "passed"}
    (row,) = loop.lake.read("decisions", where="subject == 'm2'").to_pylist()
    assert row["outcome"] == "blocked"
    assert row["reason"].startswith("blocked since 20")
    assert row["reason"].endswith("; it passed its gate")
    told = said_of_the_publication(loop)
    assert told.startswith("model m2 is not published: blocked since 20")
    assert " UTC: 100 of 300 checked labels are doubted" in told
    ended = loop.lake.rounds.get("0001")
    assert ended is not None and (ended.state, ended.outcome) == ("done", "kept")

    loop.labels_judged(ok=290, flagged=10)
    assert "Models may be published again: 10 of 300" in loop.watch().acts
    assert loop.publish("m3")[1:] == (True, "m3")
    assert said_of_the_publication(loop).startswith("model m3 is published: passed its gate")
    # What was blocked may be put into service by hand.
    assert rollback(config=loop.config, model_id="m2").in_service == "m2"


def test_a_decision_of_an_act_holds_what_it_was_made_by(loop: ActingLoop) -> None:
    loop.publish("m1")
    loop.labels_judged(ok=200, flagged=100)
    before = loop.lake.version()
    measured = Metrics()
    loop.watch(run_id="r1", metrics=measured)
    assert measured.values["label_suspects"] == pytest.approx(1 / 3)
    assert measured.values["label_suspects_n"] == 300
    rows = loop.lake.read("decisions", where="run_id == 'r1'").to_pylist()
    by = {row["decision"]: json.loads(row["inputs"]) for row in rows}
    assert by.keys() == {"watch", "block"}
    assert by["block"]["lake_version"] == by["watch"]["seen"]["version"] == before
    (rule,) = [rule for rule in by["block"]["rules"] if rule["name"] == "label_suspects"]
    assert (rule["verdict"], rule["n"], rule["threshold"]) == ("yes", 300, 0.2)
    assert by["block"]["causes"] == ["label_suspects"]


def test_a_publish_and_a_watch_that_blocks_come_one_after_the_other(loop: ActingLoop) -> None:
    loop.publish("m1")
    uri = loop.candidate("m2")
    done = []

    def publishes() -> None:
        at = loop.lake.version()
        found = publish(
            config=loop.config, lake_version=at, model_id="m2", model_uri=uri, passed=True
        )
        done.append(found)

    thread = threading.Thread(target=publishes)
    with loop.lake.run(stage="watch") as run:
        rows = {"decision": "block", "outcome": "blocked", "subject": "test", "reason": "So."}
        from visionloop.stages.watch_acts import _rows

        run.append("decisions", _rows([{**rows, "inputs": "{}", "decided_at": run._started_at}]))
        thread.start()
        time.sleep(0.7)
        assert loop.in_service() == ("m1", ""), "nothing moves while a watch writes"
        run.commit()
    thread.join(timeout=60)
    assert done[0][1:] == (False, "m1") and loop.in_service() == ("m1", "")


def test_a_person_lifts_a_block_and_says_why(
    loop: ActingLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    file = loop.folder / "loop.yaml"
    file.write_text(loop.config)
    command = ["watch", "--config", str(file), "--unblock"]
    loop.publish("m1")
    assert main(command) == 2
    assert "nobody said why" in capsys.readouterr().err
    command += ["--because", "they were relabelled"]
    assert main(command) == 2
    assert "publication is not blocked" in capsys.readouterr().err
    loop.labels_judged(ok=200, flagged=100)
    loop.watch()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unblocked"] is True
    assert loop.watch().acts == ""
    assert loop.publish("m2").published
    assert loop.decisions("block", "unblock")[1:] == [("unblock", "by_hand", "test")]
    rows = loop.lake.read("decisions", where="decision == 'unblock'").to_pylist()
    assert "since a person says so: they were relabelled" in rows[0]["reason"]


def test_a_model_that_is_worse_on_the_same_random_picks_is_rolled_back_once(
    worse: ActingLoop,
) -> None:
    found = worse.watch()
    assert "Model m1 comes back in the place of m2: of 80 random picks labelled since" in found.acts
    assert found.acts.endswith("Model m1 is in service again, in the place of m2.")
    assert worse.in_service() == ("m1", "m2")
    assert worse.states() == {"m1": "in_service", "m2": "rolled_back"}
    did = [("rollback", "called_for", "m1"), ("rollback", "published", "m1")]
    assert worse.decisions("rollback") == did
    assert worse.watch().acts == ""
    assert worse.decisions("rollback") == did
    # By itself it does not come again; a person may put it back.
    uri = f"file://{worse.folder / 'm2'}"
    again = publish(config=worse.config, model_id="m2", model_uri=uri, passed=True)
    assert again[1:] == (False, "m1")
    rows = worse.lake.read("decisions", where="decision == 'publish'").to_pylist()
    assert any("only a person puts it back" in row["reason"] for row in rows)
    assert rollback(config=worse.config, model_id="m2").in_service == "m2"
    assert worse.watch().acts == "" and worse.in_service() == ("m2", "m1")


@pytest.mark.parametrize("point", ["before", "decided", "moved"])
def test_a_watch_that_is_killed_and_started_again_rolls_back_once(
    worse: ActingLoop, point: str
) -> None:
    command = [sys.executable, "-c", KILLED, worse.config, point]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert worse.in_service()[0] == ("m1" if point == "moved" else "m2")
    dry = worse.watch(dry_run=True)
    assert dry.acts.startswith("" if point == "before" else "Left undone by a watch before: Model")
    for _ in range(2):
        worse.watch(run_id="r1")
        assert worse.in_service() == ("m1", "m2")
        assert worse.states() == {"m1": "in_service", "m2": "rolled_back"}
        assert worse.decisions("rollback") == [
            ("rollback", "called_for", "m1"),
            ("rollback", "published", "m1"),
        ]


def test_a_rollback_that_cannot_be_done_is_given_up_and_told(worse: ActingLoop) -> None:
    (worse.folder / "m1" / "model.onnx").write_bytes(b"broken")
    found = worse.watch()
    assert "Model m1 was not brought back" in found.acts
    assert worse.in_service() == ("m2", "m1")
    assert worse.decisions("rollback")[-1] == ("rollback", "failed", "m1")
    assert worse.watch().acts == ""


def test_images_that_a_model_was_trained_on_or_that_were_chosen_judge_nobody(
    loop: ActingLoop,
) -> None:
    loop.watching = BACK
    loop.publish("m1")
    loop.publish("m2")
    loop.random_picks("0001", 80, better=0, worse=60)  # labelled before m2 was trained
    names = [{"sample_id": f"0002-{i:03d}", "arm": "selected"} for i in range(80)]
    loop.random_picks("0002", 80, better=0, worse=60)
    with loop.lake.run(stage="select") as run:
        run.replace("selections", _selections(names), "round_id == '0002'")
        run.commit()
    found = loop.watch()
    assert found.acts == "" and loop.in_service() == ("m2", "m1")


def test_answers_of_two_models_are_looked_at_once_for_each_new_label_also_within_a_round(
    loop: ActingLoop,
) -> None:
    loop.watching = BACK
    loop.publish("m1")
    loop.publish("m2")

    def looks() -> int:
        loop.watch()
        rows = loop.lake.read("decisions", where="decision == 'watch'").to_pylist()
        seen = json.loads(max(rows, key=lambda row: row["decided_at"])["inputs"])["seen"]
        found: int = seen["service"]["pairs"]["looks"]
        return found

    loop.random_picks("0002", 60, better=2, worse=4)
    assert [looks(), looks()] == [1, 1]
    # The round goes on, and brings more of its labels.
    loop.random_picks("0002", 20, better=0, worse=0, first=60)
    assert [looks(), looks()] == [2, 2]
    # A watch that is not asked to compare them forgets nothing for the next.
    loop.watching = {}
    loop.watch()
    loop.watching = BACK
    assert looks() == 2


def test_what_watches_saw_is_read_no_further_back_than_it_has_to(
    loop: ActingLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.watching = BACK
    loop.publish("m1")
    loop.publish("m2")
    loop.random_picks("0002", 60, better=2, worse=4)
    loop.watch()
    (row,) = loop.lake.read("decisions", where="decision == 'watch'").to_pylist()
    first, idle = row["decided_at"], json.dumps({"seen": {"service": {"pairs": None}}})
    rows = [{**row, "decided_at": first + timedelta(hours=i)} for i in range(1, 41)]
    rows[-1]["inputs"] = rows[-2]["inputs"] = idle  # no rule asked them to look
    put(loop.lake, "decisions", rows, row["round_id"])
    read, n_read = Lake.read, []

    def counted(lake: Lake, table: str, **arguments: Any) -> Any:
        found = read(lake, table, **arguments)
        n_read.append(found.num_rows if "columns" not in arguments else 0)
        return found

    monkeypatch.setattr(Lake, "read", counted)
    version = loop.lake.version()
    assert _seen_before(loop.lake, version, "pairs", first.isoformat())["n"] == 60
    assert 0 < sum(n_read) < 20
    # And no further than the model in service has been there.
    late = rows[-1]["decided_at"].isoformat()
    assert _seen_before(loop.lake, version, "pairs", late) == {}


def test_labels_that_are_given_again_judge_nobody(loop: ActingLoop) -> None:
    loop.watching = BACK
    loop.publish("m1")
    loop.publish("m2")
    loop.random_picks("0001", 80, better=0, worse=60)
    # Both models have learned from these; who is asked again was chosen by what models say.
    again = [{"sample_id": f"0001-{i:03d}", "label": "even", "created_at": NOW} for i in range(80)]
    put(loop.lake, "labels", again, "0002")
    assert loop.watch().acts == "" and loop.in_service() == ("m2", "m1")


def _selections(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    from visionloop.lake.schemas import arrow_schema

    signed = [row | {"round_id": "0002", "run_id": "r"} for row in rows]
    return pa.Table.from_pylist(signed, schema=arrow_schema("selections"))


def test_a_dry_run_explains_every_act_and_changes_no_byte(
    worse: ActingLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    worse.labels_judged(ok=200, flagged=100)
    worse.drift(of="<b>|test")
    file = worse.folder / "loop.yaml"
    file.write_text(worse.config)
    before = content(worse.folder)
    page = worse.folder / "page.md"
    artifact = SimpleNamespace(path=str(page), uri=str(page), metadata={})
    found = worse.watch(dry_run=True, page=artifact)
    told = page.read_text()
    page.unlink()
    assert content(worse.folder) == before
    assert len(found.acts.splitlines()) == 3
    assert "What would be done besides:" in told and "(&#60;b&#62;\\|test)" in told
    assert "<b>" not in told
    assert main(["watch", "--config", str(file), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would be done: The random share is raised from 0.1 to 0.3" in said
    assert "would be done: Publication is blocked" in said
    assert "would be done: Model m1 comes back in the place of m2" in said
    assert content(worse.folder) == before
    assert len(worse.watch().acts.splitlines()) == 4


def test_a_raised_share_is_drawn_and_its_reason_told_until_it_is_restored(
    lake: Lake, tmp_path: Path
) -> None:
    names = fill(lake, n=120)
    deploy(lake, names)
    label(lake, names[:9])
    loop = ActingLoop(tmp_path)
    (tmp_path / "images" / "unused").mkdir()
    page = tmp_path / "page.md"
    artifact = SimpleNamespace(path=str(page), uri=str(page), metadata={})
    config = json.dumps(
        {"name": "test", "lake": lake.uri, "classes": CLASSES, "selection": {"n_samples": 20}}
    )

    def arms(round_id: str) -> tuple[int, set[float]]:
        select(config=config, round_id=round_id, page=artifact)
        rows = lake.read("selections", where=f"round_id == '{round_id}'").to_pylist()
        drawn = [row["propensity"] for row in rows if row["arm"] == "random"]
        return len(drawn), {round(value, 6) for value in drawn}

    n_usual, usual = arms("0000")
    assert n_usual == 2 and "random share" not in page.read_text()
    loop.drift(model="")
    loop.watch()
    n_raised, raised = arms("0001")
    assert n_raised == 6
    assert min(raised) > 2 * min(usual)
    assert "The random share is raised from 0.1 to 0.3: drift stands" in page.read_text()
    put(lake, "decisions", [_restored(lake)])
    assert arms("0002")[0] == 2


def test_flags_that_name_nobody_or_tell_no_evidence_stop_no_watch(loop: ActingLoop) -> None:
    loop.publish("m2")
    loop.drift(of="test")
    (told,) = loop.lake.read("flags").to_pylist()
    put(loop.lake, "flags", [{**told, "subject": None}, {**told, "evidence": "[1]"}])
    assert "The random share is raised from 0.1 to 0.3: drift stands" in loop.watch().acts


def test_drift_that_an_earlier_program_never_withdrew_raises_nothing(loop: ActingLoop) -> None:
    loop.publish("m2")
    told = json.dumps({"model_id": "m2", "harvested_in_round": "0000", "reference": "holdout"})
    row = {"subject": "test", "subject_type": "endpoint", "kind": "confidence_drift"}
    put(loop.lake, "flags", [{**row, "score": 0.4, "threshold": 0.2, "evidence": told}])
    assert loop.watch().acts == ""


def _restored(lake: Lake) -> dict[str, Any]:
    (row,) = lake.read("decisions", where="decision == 'random_share'").to_pylist()
    return {**row, "outcome": "restored", "inputs": "{}", "round_id": "0002"}
