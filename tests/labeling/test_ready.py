"""When a round goes on without the rest, and what becomes of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from tests.labeling.conftest import Asking
from visionloop.config import load_config
from visionloop.labeling.config import ReadyConfig
from visionloop.labeling.following import Follower
from visionloop.labeling.looking import look_at_answers
from visionloop.labeling.ready import Standing, readiness
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.selection.config import SelectionConfig
from visionloop.selection.material import read_material
from visionloop.stages.watch import watch

Answering = Callable[..., Asking]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rules", "answered", "holdout", "hours", "ready"),
    [
        ({}, 9, 4, 1000, False),
        ({}, 10, 4, 0, True),
        ({"share": 0.9}, 9, 4, 0, True),
        ({"share": 0.9}, 8, 4, 1000, False),
        ({"share": 0.9}, 10, 3, 1000, False),  # the holdout's always all
        ({"deadline_hours": 24}, 3, 4, 23.9, False),
        ({"deadline_hours": 24}, 3, 4, 24, True),
        ({"deadline_hours": 24}, 2, 4, 24, False),  # 6 of 14 is under the half
        # A round without a holdout is not judged, however much else is answered.
        ({"deadline_hours": 24}, 10, 0, 24, False),
        ({"deadline_hours": 24}, 10, 1, 24, False),
        ({"deadline_hours": 24}, 10, 2, 24, True),
        ({"deadline_hours": 24, "least": 0}, 0, 0, 24, True),
        ({"share": 0.5, "deadline_hours": 24}, 5, 3, 25, True),
        # A tenth is no binary fraction: 3 of 10 is a share of 0.3.
        ({"share": 0.3}, 3, 4, 0, True),
    ],
)
def test_a_round_goes_on_by_share_or_deadline(
    rules: dict[str, float], answered: int, holdout: int, hours: float, ready: bool
) -> None:
    standing = Standing(10, answered, 4, holdout, NOON)
    found = readiness(ReadyConfig(**rules), standing, NOON + timedelta(hours=hours))
    assert found.ready is ready and str(answered + holdout) in found.why + str(14)


def asked_ago(lake: Lake, hours: float) -> None:
    """Set back when the round asked."""
    rows = lake.read("label_requests").to_pylist()
    for row in rows:
        row["requested_at"] -= timedelta(hours=hours)
    with lake.run(stage="test") as run:
        table = pa.Table.from_pylist(rows, schema=arrow_schema("label_requests"))
        run.replace("label_requests", table, "round_id == '0000'")
        run.commit()


def recalled(lake: Lake) -> str:
    rows = lake.read("label_requests").to_pylist()
    return "".join(sorted(row["sample_id"][0] for row in rows if row["recalled"]))


def test_with_enough_labels_open_tasks_are_taken_back_and_their_samples_selectable_again(
    answered: Answering,
) -> None:
    asking = answered("ac bd cc yc", ready={"share": 0.5})
    assert asking.collect().trainable_version == ""  # of the holdout one is missing
    assert recalled(asking.lake) == "" and len(asking.desk.tasks) == 8
    asking.desk.answer("z" * 64, "dog")
    asking.desk.answer("d" * 64, "cat", state="draft")
    done = asking.collect()
    assert done.trainable_version == asking.lake.version()
    assert (done.n_labels, done.n_missing) == (5, 1) and asking.counts()["recalled"] == 2
    assert recalled(asking.lake) == "ef" and asking.state() == "running"
    # What somebody has begun is not taken away under their hands.
    assert {sample[0] for sample in asking.desk.tasks} == set("abcdyz")
    taken = read_material(asking.lake, SelectionConfig(strategy="random")).taken
    assert {sample[0] for sample in taken} == set("abcdyz")
    # Run again, it goes on as before.
    asking.request()
    again = asking.collect()
    assert again.trainable_version and again[2:] == done[2:] and len(asking.desk.tasks) == 6


def test_a_deadline_lets_a_round_go_on_with_what_is_there(answered: Answering) -> None:
    asking = answered("ac bd cc yc", ready={"deadline_hours": 5})
    assert asking.collect().trainable_version == ""
    asked_ago(asking.lake, 6)
    done = asking.collect()
    assert done.trainable_version and (done.n_labels, done.n_missing) == (4, 0)
    assert recalled(asking.lake) == "defz"
    runs = asking.lake.stage_runs(where="stage == 'collect_labels'").sort_by("sequence")
    assert "its deadline was" in json.loads(runs.to_pylist()[-1]["outputs"])["ready"]


def test_before_the_deadline_one_of_two_answers_waits_and_after_it_counts(
    answered: Answering,
) -> None:
    trust = {"overlap": 1.0, "consensus": "majority"}
    asking = answered("ac bd cc yc", trust=trust, ready={"deadline_hours": 5, "least": 0.2})
    assert asking.collect().n_labels == 0
    asked_ago(asking.lake, 6)
    asking.desk.answer("a" * 64, "cat", who="bob")
    asking.desk.answer("b" * 64, "cat", who="bob")
    done = asking.collect()
    # About the second alice and bob disagree, the third and the holdout's were answered by her
    # alone.
    assert done.trainable_version and asking.labels() == {"a": "cat", "c": "cat", "y": "cat"}
    assert asking.counts()["conflicts"] == 1


SEVERAL: dict[str, Any] = {"overlap": 1.0, "annotators": 2, "consensus": "majority"}


def test_a_round_that_goes_on_asks_nobody_for_the_second_of_two_answers(
    answered: Answering,
) -> None:
    late = {"deadline_hours": 5, "least": 0.2}
    asking = answered("ac bd cc yc", trust=SEVERAL, ready=late)
    asking.desk.answer("a" * 64, "cat", who="bob")
    asking.desk.answer("b" * 64, "cat", who="bob")
    asking.desk.answer("y" * 64, None, who="bob", state="draft")
    imported = {"sample_id": "d" * 64, "label": "dog", "task": "classification",
                "origin": "import", "created_at": datetime.now(UTC)}  # fmt: skip
    with asking.lake.run(stage="import") as run:
        run.append("labels", pa.Table.from_pylist([imported]))
        run.commit()
    asking.collect()
    assert {task["wanted"] for s, task in asking.desk.tasks.items() if s[0] != "b"} == {2}
    assert asking.desk.tasks["b" * 64]["wanted"] == 3  # they disagree
    asked_ago(asking.lake, 6)
    assert asking.collect().trainable_version
    # What was open is gone, and so is the task whose label came in another way.
    wanted = {sample[0]: task["wanted"] for sample, task in asking.desk.tasks.items()}
    assert wanted == {"a": 2, "b": 2, "c": 1, "y": 2}, "bob has begun with the last one"
    rows = asking.lake.read("label_requests").to_pylist()
    stored = {row["sample_id"][0]: row["answers"] for row in rows if not row["recalled"]}
    assert stored == wanted | {"d": 2}
    assert asking.labels() == {"a": "cat", "c": "cat", "d": "dog", "y": "cat"}


def test_a_second_answer_that_was_begun_is_collected_after_the_round_went_on(
    answered: Answering,
) -> None:
    asking = answered("ac bc cc dc ec fc yc zc", trust=SEVERAL, ready={"deadline_hours": 5})
    asking.desk.answer("a" * 64, None, who="bob", state="draft")
    asking.collect()
    asked_ago(asking.lake, 6)
    assert asking.collect().n_labels == 8
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    asking.desk.answer("a" * 64, "cat", who="bob")
    asking.lake.rounds.open("next")
    asking.collect()
    rows = asking.lake.read("labels", where=f"sample_id == '{'a' * 64}'").to_pylist()
    assert max(rows, key=lambda row: row["created_at"])["annotator"] == "alice, bob"


def test_a_late_answer_to_a_round_that_went_on_is_collected_with_the_next(
    answered: Answering,
) -> None:
    asking = answered("ac bd cc yc zd", ready={"share": 0.5})
    asking.desk.answer("d" * 64, "cat", state="draft")
    asking.collect()
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    asking.desk.answer("d" * 64, "dog")
    asking.lake.rounds.open("next")
    with asking.lake.run(stage="select") as run:
        run.append("selections", pa.table({"sample_id": ["e" * 64], "rank": [0]}))
        run.commit()
    assert asking.request().n_requested == 1  # a sample that was taken back is asked about again
    done = asking.collect()
    assert (done.n_labels, done.n_missing) == (0, 1)
    assert asking.labels()["d"] == "dog"
    rows = asking.lake.read("labels", where=f"sample_id == '{'d' * 64}'").to_pylist()
    assert [row["round_id"] for row in rows] == ["0000"]
    assert asking.state() == "done"


def test_a_correction_to_a_round_that_is_over_is_collected_by_name_and_leaves_it_over(
    answered: Answering,
) -> None:
    asking = answered("ac bd cc dd ec fc yc zd")
    assert asking.collect().trainable_version
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="published")
        run.commit()
    asking.desk.answer("a" * 64, "dog")
    asking.collect(round_id="0000")
    assert asking.labels()["a"] == "dog" and asking.state() == "done"


def test_a_watch_resumes_a_round_that_has_enough_and_not_one_whose_answers_cannot_be_used(
    answered: Answering,
) -> None:
    asking = answered("ac bd cc yc zd", ready={"share": 0.7})
    asking.collect()
    config = load_config(asking.config())

    def look() -> tuple[int, bool]:
        found = look_at_answers(config, asking.lake, "0000", datetime.now(UTC))
        return found.missing, bool(found.enough)

    assert look() == (3, False)
    asking.desk.answer("d" * 64, "cow")  # the tool counts it, and the round cannot
    assert look()[1] is False
    asked = watch(config=asking.config(), dry_run=True)
    assert asked.decision == "wait" and "of 8 requests are answered" in asked.reason
    asking.desk.answer("d" * 64, "cat")
    assert look()[1] is False  # 4 of 6 is less than 0.7
    asking.desk.answer("e" * 64, "cat")
    assert look() == (1, True)
    found = watch(config=asking.config(), dry_run=True)
    assert found.decision == "resume" and "share` 0.7 is enough" in found.reason


def test_the_numbers_that_a_watch_tells_are_of_one_definition(answered: Answering) -> None:
    asking = answered("ac bd", trust={"overlap": 1.0, "annotators": 2}, ready={"share": 0.5})
    for letter in "abcyz":
        for who in ("alice", "bob"):
            asking.desk.answer(letter * 64, "cat", who=who)
    asking.desk.answer("c" * 64, "cow", who="bob")
    asking.collect()
    config = load_config(asking.config())

    def follow() -> str:
        said: list[str] = []
        asking.lake.rounds.release("run")
        Follower(config, asking.lake, say=said.append).look()
        return said[0]

    # By the tool's count alone it would be enough: the answers are read.
    found = look_at_answers(config, asking.lake, "0000", datetime.now(UTC))
    assert (found.missing, found.enough, found.read) == (4, "", True)
    assert follow() == "round 0 waits: 4 of 8 requests are answered"
    # One of the two answers that were asked for makes no request answered.
    asking.desk.answer("d" * 64, "cat")
    asking.desk.answer("e" * 64, "cat")
    asking.desk.answer("e" * 64, "cat", who="bob")
    told = "5 of 8 requests are answered, and `labeling.ready.share` 0.5 is enough"
    assert follow() == f"round 0 goes on: {told}"
    asked = watch(config=asking.config(), dry_run=True)
    assert asked.decision == "resume" and f"{told}; 3 missing in" in asked.reason


def test_a_count_of_the_tool_is_told_as_one(answered: Answering) -> None:
    asking = answered("ac bd")
    asking.collect()
    asking.desk.answer("c" * 64, "cow")
    asking.lake.rounds.release("run")
    said: list[str] = []
    Follower(load_config(asking.config()), asking.lake, say=said.append).look()
    told = "3 of 8 requests are answered at the tool, usable or not"
    assert said == [f"round 0 waits: {told}"]
    asked = watch(config=asking.config(), dry_run=True)
    assert asked.decision == "wait" and f"{told}; 5 missing in" in asked.reason


def test_a_watch_resumes_at_the_deadline(answered: Answering) -> None:
    asking = answered("ac bd cc yc", ready={"deadline_hours": 5})
    asking.collect()
    assert watch(config=asking.config(), dry_run=True).decision == "wait"
    asked_ago(asking.lake, 6)
    found = watch(config=asking.config(), dry_run=True)
    assert found.decision == "resume" and "its deadline was" in found.reason


def test_a_list_of_answers_can_be_enough_too(asking: Asking) -> None:
    asking.request(provider="csv", ready={"deadline_hours": 5, "least": 0.2})
    path = asking.lake.path("label_requests", "test-0000.csv").removeprefix("file://")
    with open(path) as file:
        lines = file.read().splitlines()
    said = {"a": "cat", "b": "dog", "y": "cat"}
    lines = [line.replace(",,", f",{said.get(line[0], '')},", 1) for line in lines]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    assert asking.collect().trainable_version == ""
    asked_ago(asking.lake, 6)
    assert asking.collect().trainable_version
    with open(path) as file:
        assert len(file.read().splitlines()) == 4  # what nobody waits for is not in it any more
