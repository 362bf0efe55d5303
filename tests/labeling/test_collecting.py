"""What becomes of people's answers: kept as they are, decided on, counted, corrected, rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.labeling.conftest import Asking
from visionloop.errors import VisionloopError
from visionloop.labeling.answers import latest_boxes, skipped_samples
from visionloop.labeling.trust import crowdlab
from visionloop.lake import Lake

Answering = Callable[..., Asking]
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SEVERAL: dict[str, Any] = {"trust": {"overlap": 1.0, "annotators": 2, "consensus": "majority"}}


class Page:
    """An artifact of a task."""

    def __init__(self, path: Path) -> None:
        self.path = self.uri = str(path)
        self.metadata: dict[str, object] = {}

    def text(self) -> str:
        return Path(self.path).read_text()


def rows_of(lake: Lake, sample: str) -> list[dict[str, Any]]:
    rows = lake.read("labels", where=f"sample_id == '{sample * 64}'").to_pylist()
    return sorted(rows, key=lambda row: row["created_at"])


def flags_of(lake: Lake) -> dict[str, dict[str, Any]]:
    rows = lake.read("flags", where="kind == 'label_conflict'").to_pylist()
    return {row["subject"][0]: json.loads(row["evidence"]) for row in rows}


def test_answers_are_kept_with_who_gave_them_and_counts_add_up(
    answered: Answering, tmp_path: Path
) -> None:
    asking = answered("ac bd")
    asking.desk.answer("c" * 64, None, who="bob", state="skipped")
    asking.desk.answer("d" * 64, "cat", who="bob", state="draft")
    asking.desk.answer("e" * 64, "cow", who="bob")
    asking.desk.answer("f" * 64, "cat", who="bob", rejected="outside")
    page = Page(tmp_path / "page.md")
    done = asking.collect(page=page)
    assert (done.trainable_version, done.n_labels, done.n_skipped, done.n_missing) == ("", 2, 1, 5)
    assert asking.state() == "waiting" and asking.labels() == {"a": "cat", "b": "dog"}
    counts = asking.counts()
    assert (counts["used"], counts["passed"], counts["drafts"], counts["rejected"]) == (2, 1, 1, 2)
    assert (counts["rejected_unknown_class"], counts["rejected_outside"]) == (1, 1)
    kept = {r["sample_id"][0]: r for r in asking.lake.read("annotations").to_pylist()}
    assert {letter: row["state"] for letter, row in kept.items()} == {
        "a": "done", "b": "done", "c": "skipped", "d": "draft", "e": "rejected", "f": "rejected",
    }  # fmt: skip
    assert (kept["e"]["reason"], kept["e"]["detail"]) == ("unknown_class", "cow")
    (row,) = rows_of(asking.lake, "a")
    assert (row["annotator"], row["origin"], row["seconds"]) == ("alice", "FileTool", 2.5)
    assert (row["n_annotations"], row["quality"]) == (1, None)
    assert skipped_samples(asking.lake.read("labels").to_pylist()) == {"c" * 64}
    text = page.text()
    assert "| training | 6 | 2 | 1 | 3 | 0 | 0 |" in text
    assert "| holdout | 2 | 0 | 0 | 2 | 0 | 0 |" in text
    assert "| bob | 0 | 1 | 1 | 2 |" in text
    assert "outside 1, unknown class 1" in text


def test_only_what_changed_is_collected_again_and_nothing_is_stored_twice(
    answered: Answering,
) -> None:
    asking = answered("ac bd")
    asking.collect()
    version = asking.lake.read("labels").num_rows, asking.lake.read("annotations").num_rows
    assert asking.desk.tool.state["collected_from"] == ""
    asking.collect()
    assert asking.desk.tool.state["collected_from"] == "2"
    assert (asking.lake.read("labels").num_rows, asking.lake.read("annotations").num_rows) == (
        version
    )
    asking.desk.answer("c" * 64, "dog")
    assert asking.collect().n_labels == 3
    assert asking.labels() == {"a": "cat", "b": "dog", "c": "dog"}


def test_a_correction_is_a_new_row_and_what_is_taken_away_counts_no_more(
    answered: Answering,
) -> None:
    asking = answered("ac bd")
    asking.collect()
    asking.desk.answer("a" * 64, "dog")
    asking.desk.take_away("b" * 64)
    done = asking.collect()
    assert (done.n_labels, done.n_missing) == (1, 7)
    assert asking.labels() == {"a": "dog"}
    assert [row["label"] for row in rows_of(asking.lake, "a")] == ["cat", "dog"]
    assert [row["origin"] for row in rows_of(asking.lake, "b")] == ["FileTool", "withdrawn"]
    asking.desk.answer("b" * 64, None, state="skipped")
    assert asking.collect().n_skipped == 1
    asking.desk.answer("b" * 64, "cat")
    asking.collect()
    assert asking.labels() == {"a": "dog", "b": "cat"}
    assert len(rows_of(asking.lake, "b")) == 4


def test_boxes_are_answers_and_so_is_that_there_are_none(answered: Answering) -> None:
    asking = answered(ask="boxes")
    box = {"x_min": 1.1, "y_min": 2.0, "x_max": 9.3, "y_max": 8.0, "label": "cat"}
    asking.desk.answer("a" * 64, None, boxes=[box])
    asking.desk.answer("b" * 64, None, boxes=[])
    asking.desk.answer("c" * 64, None, boxes=[box | {"label": "cow"}])
    assert asking.collect().n_labels == 2
    asking.collect()
    found = latest_boxes(asking.lake.read("labels").to_pylist())
    assert {sample[0]: len(row["boxes"]) for sample, row in found.items()} == {"a": 1, "b": 0}
    assert found["a" * 64]["boxes"][0]["x_max"] == pytest.approx(9.3)
    assert asking.lake.read("labels").num_rows == 2 and asking.labels() == {}
    asking.desk.take_away("a" * 64)
    assert asking.collect().n_labels == 1
    found = latest_boxes(asking.lake.read("labels").to_pylist())
    assert {sample[0] for sample in found} == {"b"}


def test_two_people_who_agree_make_one_label(answered: Answering) -> None:
    asking = answered("ac", **SEVERAL)
    assert asking.desk.tasks["a" * 64]["wanted"] == 2
    assert asking.collect().n_labels == 0  # one of two
    asking.desk.answer("a" * 64, "cat", who="bob", seconds=4.0)
    assert asking.collect().n_labels == 1
    (row,) = rows_of(asking.lake, "a")
    assert (row["annotator"], row["n_annotations"]) == ("alice, bob", 2)
    assert (row["seconds"], row["quality"]) == (6.5, 1.0)
    assert flags_of(asking.lake) == {}


@pytest.mark.parametrize("trained,method", [("b", "crowdlab"), ("abcd", "majority")])
def test_crowdlab_hears_models_that_did_not_train_on_the_sample(
    answered: Answering, monkeypatch: pytest.MonkeyPatch, trained: str, method: str
) -> None:
    monkeypatch.setattr(crowdlab, "ENOUGH", 3)
    asking = answered("ac bd cd dc", trust=SEVERAL["trust"] | {"consensus": "crowdlab"})
    with asking.lake.run(stage="train", round_id="0000") as run:
        rows = [{"training_set": "s", "sample_id": letter * 64} for letter in trained]
        run.append("training_sets", pa.Table.from_pylist(rows))
        run.commit()
    for letter, label in (("a", "cat"), ("b", "dog"), ("c", "dog"), ("d", "dog")):
        asking.desk.answer(letter * 64, label, who="bob")
    asking.collect()
    assert asking.labels().items() >= {"a": "cat", "b": "dog", "c": "dog"}.items()
    (row,) = rows_of(asking.lake, "a")
    assert (row["quality"] == 1.0) == (method == "majority")
    if method == "majority":
        told = flags_of(asking.lake)["d"]
        assert told["method"] == "majority" and "there are 0" in told["note"]


def test_the_same_person_twice_is_one_answer(answered: Answering) -> None:
    asking = answered("ac", **SEVERAL)
    asking.desk.answer("a" * 64, "dog", who="alice")
    assert asking.collect().n_labels == 0


def test_a_conflict_is_flagged_and_asked_again_until_people_agree(
    answered: Answering, tmp_path: Path
) -> None:
    asking = answered("ac", **SEVERAL)
    asking.desk.answer("a" * 64, "dog", who="bob")
    page = Page(tmp_path / "page.md")
    done = asking.collect(page=page)
    assert (done.n_labels, done.n_missing) == (0, 8) and asking.counts()["asked_again"] == 1
    flag = flags_of(asking.lake)["a"]
    assert flag["votes"] == {"alice": "cat", "bob": "dog"} and flag["state"] == "asked again"
    assert asking.desk.tasks["a" * 64]["wanted"] == 3
    assert "1 that people disagree about" in page.text()
    asking.collect()  # nobody has answered yet: it is not asked about once more
    assert asking.desk.tasks["a" * 64]["wanted"] == 3 and "a" in flags_of(asking.lake)
    asking.desk.answer("a" * 64, "dog", who="carol")
    assert asking.collect().n_labels == 1
    assert asking.labels() == {"a": "dog"}
    flag = flags_of(asking.lake)["a"]
    assert (flag["state"], flag["solved"]) == ("solved", "dog")
    assert flag["votes"] == {"alice": "cat", "bob": "dog", "carol": "dog"}


def test_a_conflict_that_nobody_solves_stays_one_and_is_not_trained_on(
    answered: Answering, tmp_path: Path
) -> None:
    asking = answered("ac", **SEVERAL)
    for who, label in (("bob", "dog"), ("carol", None), ("dora", None)):
        state = "done" if label else "skipped"
        asking.desk.answer("a" * 64, label, who=who, state=state)
        asking.collect()
    # Two of four cannot label it: as many as can. Nobody else is asked.
    assert asking.desk.tasks["a" * 64]["wanted"] == 4
    assert asking.counts()["conflicts"] == 1 and asking.labels() == {}
    page = Page(tmp_path / "page.md")
    asking.collect(page=page)
    assert "**1 in conflict**" in page.text()
    assert flags_of(asking.lake)["a"]["state"] == "left out of training"
    assert [row["origin"] for row in rows_of(asking.lake, "a")] == ["conflict"]


def test_more_people_who_cannot_label_it_than_can_skip_it(answered: Answering) -> None:
    trust = SEVERAL["trust"] | {"annotators": 3}
    asking = answered("ac", trust=trust)
    for who in ("bob", "carol"):
        asking.desk.answer("a" * 64, None, who=who, state="skipped")
    assert asking.collect().n_skipped == 1 and asking.labels() == {}


def relabel(asking: Asking, label: str) -> None:
    """Have the seventh sample doubted, which a person has labelled in an earlier round."""
    with asking.lake.run(stage="select", round_id="0000") as run:
        run.append("relabels", pa.table({"sample_id": ["g" * 64], "rank": [0], "label": [label]}))
        old = {"sample_id": "g" * 64, "label": label, "task": "classification", "round_id": ""}
        old |= {"annotator": "zoe", "origin": "import", "created_at": LONG_AGO}
        run.append("labels", pa.Table.from_pylist([old]))
        run.commit()


def test_a_second_opinion_that_agrees_confirms_a_label(asking: Asking) -> None:
    relabel(asking, "cat")
    asking.request()
    assert asking.collect().n_labels == 0  # what is in doubt is no answer
    asking.desk.answer("g" * 64, "cat")
    assert asking.collect().n_labels == 1
    row = rows_of(asking.lake, "g")[-1]
    assert (row["label"], row["n_annotations"], row["annotator"]) == ("cat", 2, "alice, zoe")


def test_a_second_opinion_that_differs_overrules_nobody_until_a_third_one_comes(
    asking: Asking,
) -> None:
    relabel(asking, "cat")
    asking.request()
    asking.desk.answer("g" * 64, "dog")
    asking.collect()
    assert asking.labels() == {} and flags_of(asking.lake)["g"]["votes"] == {
        "zoe": "cat",
        "alice": "dog",
    }
    assert asking.desk.tasks["g" * 64]["wanted"] == 2
    asking.desk.answer("g" * 64, "dog", who="bob")
    asking.collect()
    assert asking.labels() == {"g": "dog"}
    for who in ("alice", "bob"):
        asking.desk.take_away("g" * 64, who=who)
    asking.collect()
    assert asking.labels() == {"g": "cat"}  # what was said before stands again


def test_a_label_is_of_whoever_gives_it_now(answered: Answering) -> None:
    asking = answered("ac")
    asking.collect()
    asking.desk.answer("a" * 64, "cat", who="bob", seconds=9.0)
    asking.desk.take_away("a" * 64)
    asking.collect()
    last = rows_of(asking.lake, "a")[-1]
    assert (last["label"], last["annotator"], last["seconds"]) == ("cat", "bob", 9.0)
    assert asking.labels() == {"a": "cat"}


def test_an_import_answers_a_request_and_the_tool_is_still_listened_to(
    answered: Answering,
) -> None:
    asking = answered("ac")
    with asking.lake.run(stage="import") as run:
        row = {"sample_id": "b" * 64, "label": "dog", "task": "classification", "origin": "import",
               "created_at": datetime.now(UTC)}  # fmt: skip
        run.append("labels", pa.Table.from_pylist([row]))
        run.commit()
    assert asking.collect().n_labels == 2 and asking.labels() == {"a": "cat", "b": "dog"}
    asking.desk.answer("b" * 64, "cat")
    assert asking.collect().n_labels == 2 and asking.labels() == {"a": "cat", "b": "cat"}


def test_a_tool_that_goes_down_loses_nothing_and_the_round_can_be_run_again(
    answered: Answering,
) -> None:
    asking = answered("ac")
    asking.collect()
    asking.desk.answer("b" * 64, "dog")
    asking.desk.set(down=True)
    version = asking.lake.version()
    with pytest.raises(VisionloopError, match="does not answer"):
        asking.collect()
    assert asking.lake.version() == version and asking.labels() == {"a": "cat"}
    asking.desk.set(down=False)
    assert asking.collect().n_labels == 2


def test_a_task_that_was_deleted_takes_no_answer_back_and_an_open_one_is_not_waited_for(
    answered: Answering, tmp_path: Path
) -> None:
    asking = answered("ac bd cc dd ec yc zd")
    asking.collect()
    for letter in "af":
        asking.desk.delete_task(letter * 64)
    page = Page(tmp_path / "page.md")
    done = asking.collect(page=page)
    assert (done.n_labels, done.n_missing, done.trainable_version != "") == (7, 0, True)
    counts = asking.counts()
    assert (counts["recalled"], counts["gone"]) == (1, 1) and asking.labels()["a"] == "cat"
    assert "**1 taken back**" in page.text()


def test_an_answer_about_an_erased_sample_is_counted_and_not_stored(answered: Answering) -> None:
    from visionloop.lake.erasing.work import erase
    from visionloop.serving.erasing import LoggedEvents

    asking = answered("ac bd")
    asking.collect()
    asking.lake.rounds.release("run")
    events = [LoggedEvents(asking.lake.path("events"))]
    task = asking.desk.tasks["a" * 64]["id"]
    done = erase([asking.lake], {"a" * 64}, events)
    assert done.proof is not None and done.proof.clean
    assert done.tables["test.annotations"].removed == 1
    assert done.tasks == [f"FileTool: {task}"]
    asking.desk.answer("a" * 64, "dog", who="bob")
    asking.collect()
    counts = asking.counts()
    assert counts["rejected_erased"] == 2 and counts["in"] == 7
    for table in ("annotations", "labels", "label_requests"):
        assert "a" * 64 not in asking.lake.read(table)["sample_id"].to_pylist()


def test_a_round_that_changes_its_provider_keeps_what_was_answered(answered: Answering) -> None:
    asking = answered("ac bd")
    asking.collect()
    asking.request(provider="csv")
    path = Path(asking.lake.path("label_requests", "test-0000.csv").removeprefix("file://"))
    lines = [
        line.replace(",,", ",dog,", 1) if line.startswith("ccc") else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    assert asking.collect().n_labels == 3
    assert asking.labels() == {"a": "cat", "b": "dog", "c": "dog"}
    origins = {r["sample_id"][0]: r["origin"] for r in asking.lake.read("labels").to_pylist()}
    assert origins == {"a": "FileTool", "b": "FileTool", "c": "csv"}


def test_what_was_decided_is_not_decided_anew_by_other_rules_once_the_round_is_over(
    answered: Answering,
) -> None:
    trust = {"overlap": 1.0, "annotators": 3, "consensus": "majority"}
    asking = answered("ac bc", trust=trust, ready={"share": 0.1, "deadline_hours": 1e-9})
    for letter in "ab":
        asking.desk.answer(letter * 64, "cat", who="bob")
        asking.desk.answer(letter * 64, "dog", who="carol")
    asking.labeling["ready"] |= {"least": 0}
    assert asking.collect().trainable_version and asking.labels() == {"a": "cat", "b": "cat"}
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="published")
        run.commit()
    asking.labeling["trust"] = trust | {"consensus": "agreement"}
    asking.desk.answer("b" * 64, "dog", who="bob")
    done = asking.collect(round_id="0000")
    # Somebody has answered anew about the second alone: it is a conflict now, by the rules of now.
    assert asking.labels() == {"a": "cat"} and done.n_labels == 1
    assert asking.counts()["conflicts"] == 1 and list(flags_of(asking.lake)) == ["b"]


def test_what_is_known_is_not_asked_and_a_task_that_went_is_not_made_again(
    asking: Asking,
) -> None:
    with asking.lake.run(stage="import") as run:
        row = {"sample_id": "a" * 64, "label": "dog", "task": "classification", "origin": "import",
               "created_at": LONG_AGO}  # fmt: skip
        run.append("labels", pa.Table.from_pylist([row]))
        run.commit()
    assert asking.request().n_requested == 8
    assert {sample[0] for sample in asking.desk.tasks} == set("bcdefyz")
    asking.desk.answer("b" * 64, "cat")
    done = asking.collect()
    assert (done.n_labels, done.n_missing, asking.counts()["recalled"]) == (2, 6, 0)
    asking.desk.delete_task("b" * 64)
    asking.request()
    assert {sample[0] for sample in asking.desk.tasks} == set("cdefyz")
    assert asking.collect().n_labels == 2 and asking.labels() == {"a": "dog", "b": "cat"}


def test_nobody_waits_for_a_second_answer_to_a_task_that_is_gone(answered: Answering) -> None:
    asking = answered("ac", **SEVERAL)
    asking.desk.answer("b" * 64, "dog", state="draft")
    asking.collect()
    for letter in "ab":
        asking.desk.delete_task(letter * 64)
    done = asking.collect()
    assert (done.n_labels, asking.labels()) == (1, {"a": "cat"})
    assert asking.counts()["recalled"] == 1
