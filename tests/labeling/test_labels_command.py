"""`visionloop labels`: how far people are, ask, collect, take back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.conftest import Asking
from tests.labeling.test_collecting import Page
from visionloop.cli import main
from visionloop.cli.labels_status import _annotator

Answering = Callable[..., Asking]


@pytest.fixture
def command(asking: Asking, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs an action of the command as JSON, and as text."""

    def run(action: str, *more: str, status: int = 0, text: bool = False) -> Any:
        path = tmp_path / "loop.yaml"
        path.write_text(asking.config())
        asking.lake.rounds.release("run")
        arguments = ["labels", action, "--config", str(path), *more]
        capsys.readouterr()
        assert main(arguments if text else [*arguments, "--json"]) == status
        printed = capsys.readouterr()
        if status:
            return printed.err
        return printed.out if text else json.loads(printed.out)

    return run


def test_a_round_is_asked_collected_and_told_by_hand(command: Any, asking: Asking) -> None:
    assert "no labels were asked for yet" in command("status", text=True)
    assert command("request")["n_requested"] == 8
    for letter, label in (("a", "cat"), ("b", "dog")):
        asking.desk.answer(letter * 64, label, seconds=3.0)
    asking.desk.answer("c" * 64, None, who="bob", state="skipped")
    asking.desk.answer("d" * 64, "cow", who="bob")
    found = command("collect")
    assert (found["round_id"], found["n_labels"], found["state"]) == ("0000", 2, "waiting")
    (told,) = command("status")["rounds"]
    numbers = {name: told[name] for name in ("requested", "labelled", "skipped", "open")}
    assert numbers == {"requested": 8, "labelled": 2, "skipped": 1, "open": 5}
    assert told["answers"] == {"done": 2, "skipped": 1, "rejected": 1}
    assert told["rejected"] == {"unknown_class": 1}
    assert told["purposes"]["holdout"] == {"requested": 2, "open": 2}
    people = {row["annotator"]: row for row in told["annotators"]}
    assert (people["alice"]["n"], people["alice"]["median_seconds"]) == (2, 3.0)
    text = command("status", "--live", text=True)
    assert "round 0 (waiting), FileTool: 8 requested, 2 labelled, 1 skipped, 5 open" in text
    assert "not used: 1 unknown class; 1 request stays open until" in text
    task = asking.desk.tasks["d" * 64]["id"]
    named = f"    task {task}, answer {task}-bob, sample {'d' * 12}, by bob: unknown class: cow"
    assert named in text and "by alice: 2 done, median 3.0 s" in text
    assert "at the tool, of round 0: 4 of 8 requests are answered, 1 of them by answers" in text


def test_open_requests_are_taken_back_and_the_round_goes_on_without_them(
    command: Any, asking: Asking
) -> None:
    command("request")
    for letter in "abyz":
        asking.desk.answer(letter * 64, "cat" if letter in "ay" else "dog")
    asking.desk.answer("c" * 64, "cat", state="draft")
    assert command("collect")["state"] == "waiting"
    found = command("recall", "--dry-run")
    assert len(found["asked"]) == 3 and found["recalled"] == [] and len(asking.desk.tasks) == 8
    told = command("recall", "--dry-run", text=True)
    assert "4 requests are open, 3 of which can be taken back" in told
    assert "1 stays, since somebody has begun to answer" in told
    # Meanwhile somebody begins one of them: the tool keeps it.
    asking.desk.answer("d" * 64, "dog", state="draft")
    found = command("recall")
    assert [sample[0] for sample in found["recalled"]] == ["e", "f"]
    (told,) = command("status")["rounds"]
    assert (told["recalled"], told["open"]) == (2, 2)
    for letter in "cd":
        asking.desk.answer(letter * 64, "cat")
    assert command("collect")["state"] == "running"
    assert command("recall")["asked"] == []


@pytest.mark.parametrize("action", ["request", "collect", "recall"])
def test_a_round_that_is_not_there_or_that_a_run_holds_is_refused(
    action: str, command: Any, asking: Asking
) -> None:
    if action != "request":
        assert "no round 7" in command(action, "--round", "7", status=2)
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    assert "no round is open" in command(action, status=2)
    if action == "request":
        assert "round 0 is over" in command(action, "--round", "round 0", status=2)


def test_a_live_run_is_not_disturbed(
    command: Any, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.lake.rounds import Rounds

    monkeypatch.setattr(Rounds, "live_holder", lambda *_, **__: "process 7 of this machine")
    assert "is being run by process 7" in command("collect", status=1)


def test_what_another_provider_asked_is_not_recalled(command: Any, asking: Asking) -> None:
    command("request")
    asking.labeling = {"provider": "csv"}
    told = command("recall", status=2)
    assert "were made at FileTool" in told and "Give the configuration that asked" in told


def test_answers_that_cannot_be_used_are_named_with_task_person_and_reason(
    command: Any, asking: Asking
) -> None:
    command("request")
    reasons = {"a": "empty", "b": "malformed", "c": "outside"}
    for letter, reason in reasons.items():
        detail = f"{reason}\n\x1b of {letter}" if letter == "c" else reason
        asking.desk.answer(letter * 64, None, who="bob", rejected=reason, detail=detail)
    asking.desk.answer("d" * 64, "zebra", who="bob")
    asking.desk.answer("e" * 64, None, who="", rejected="empty")
    command("collect")
    (told,) = command("status")["rounds"]
    tasks = {sample: task["id"] for sample, task in asking.desk.tasks.items()}
    found = {one["sample_id"][0]: one for one in told["unusable"]}
    assert {letter: one["reason"] for letter, one in found.items()} == {
        **reasons, "d": "unknown_class", "e": "empty",
    }  # fmt: skip
    for letter, one in found.items():
        task, who = tasks[letter * 64], "" if letter == "e" else "bob"
        assert (one["task"], one["external_id"]) == (task, f"{task}-{who}")
        assert (one["annotator"], one["holds"]) == (who, True)
    people = {row["annotator"]: row["rejected"] for row in told["annotators"]}
    assert people == {"bob": 4, "": 1}
    text = command("status", text=True)
    assert "5 requests stay open until they are corrected or deleted" in text
    assert f"sample {'c' * 12}, by bob: outside: outside of c\n" in text
    assert "by nobody named: empty: as it is" in text and "by bob: 4 rejected" in text
    # Mended at the tool, it is read anew, and named no more.
    asking.desk.answer("d" * 64, "cat", who="bob")
    command("collect")
    assert "zebra" not in command("status", text=True)


def test_the_first_answers_that_cannot_be_used_are_named_and_the_others_counted(
    command: Any, asking: Asking
) -> None:
    command("request")
    for letter in "abc":
        for number in range(8):
            asking.desk.answer(letter * 64, "cow", who=f"person-{number}")
    command("collect")
    lines = command("status", text=True).splitlines()
    assert sum(line.startswith("    task ") for line in lines) == 20
    assert "    and 4 more, see --json" in lines
    (told,) = command("status")["rounds"]
    assert len(told["unusable"]) == 24
    assert any("3 requests stay open" in line for line in lines)


def test_a_recall_tells_that_answers_which_cannot_be_used_keep_their_requests(
    command: Any, asking: Asking
) -> None:
    command("request")
    for letter in "abcyz":
        asking.desk.answer(letter * 64, "cow")
    for letter in "de":
        asking.desk.answer(letter * 64, "cat")
    asking.desk.answer("f" * 64, "cat", state="draft")
    command("collect")
    (told,) = command("status")["rounds"]
    dry = command("recall", "--dry-run")
    assert len(dry["unusable"]) == 5 and [s[0] for s in dry["begun"]] == ["f"]
    assert dry["asked"] == [] and told["open"] == 6
    text = command("recall", "--dry-run", text=True)
    assert "6 requests are open, 0 of which can be taken back" in text
    assert "1 stays, since somebody has begun to answer" in text
    assert "5 stay, with answers that cannot be used" in text
    text = command("recall", text=True)
    assert "0 requests were taken back" in text and "5 stay, with answers" in text
    asking.desk.take_away("f" * 64)
    command("collect")
    text = command("recall", text=True)
    assert "1 request was taken back" in text and "begun" not in text
    assert "`visionloop labels status` names them" in text


def test_collect_and_status_count_conflicts_alike_and_the_page_adds_up(
    command: Any, asking: Asking, tmp_path: Path
) -> None:
    asking.labeling["trust"] = {"overlap": 1.0, "annotators": 2}
    command("request")

    def answer(letter: str, **said: str | None) -> None:
        for who, label in said.items():
            state = {} if label else {"state": "skipped"}
            asking.desk.answer(letter * 64, label, who=who, **state)

    answer("a", ann="cat", bob="cat")
    answer("b", ann="cat", bob="dog")
    answer("c", ann=None, bob=None)
    answer("d", ann="cat", bob="cow")
    answer("e", ann="cat", bob="dog")
    for _ in range(2):  # with the second collection nobody is newly asked
        words = "8 requested, 1 labelled, 1 skipped, 6 open (with 2 conflicts, asked again)"
        assert f"round 0: {words}; it waits" in command("collect", text=True)
        assert words in command("status", text=True)
        counts = asking.counts()
        assert (counts["ok"], counts["skipped"], counts["missing"]) == (1, 1, 6)
    page = tmp_path / "page.md"
    asking.collect(page=Page(page))
    assert "**2 that people disagree about**, counted as missing" in page.read_text()
    answer("b", carl=None)
    answer("e", carl="dog")
    command("collect")
    answer("b", dora="owl")
    answer("b", dora="dog")
    answer("b", dora=None)
    found = command("collect")["requests"]
    told = command("status")["rounds"][0]
    assert {name: told[name] for name in found} == found
    asking.desk.delete_task("f" * 64)
    asking.collect(page=Page(page))
    rows = [line for line in page.read_text().splitlines() if line.startswith("| training")]
    (row,) = [[int(cell) for cell in line.split("|")[2:-1]] for line in rows]
    assert row[0] == sum(row[1:]) == 6 and row[-1] == 1
    told = command("status")["rounds"][0]
    by = dict(zip(("requested", "labelled", "skipped", "open", "conflicts"), row, strict=False))
    purposes = told["purposes"]["training"]
    assert by == {name: purposes.get(name, 0) for name in by}
    assert "1 in conflict" in command("collect", text=True), "nobody is asked any more"
    assert "1 recalled" in command("collect", text=True)


@pytest.mark.parametrize("as_json", [True, False])
def test_what_the_lake_knows_is_told_where_the_tool_does_not_answer(
    as_json: bool, asking: Asking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.request()
    asking.lake.rounds.release("run")
    asking.desk.set(down=True)
    path = tmp_path / "loop.yaml"
    path.write_text(asking.config())
    more = ["--json"] if as_json else []
    assert main(["labels", "status", "--live", "--config", str(path), *more]) == 1
    printed = capsys.readouterr()
    assert "the tool does not answer" in printed.err
    if as_json:
        told = json.loads(printed.out)
        assert told["rounds"][0]["requested"] == 8 and "live" not in told
    else:
        assert "round 0 (running), FileTool: 8 requested" in printed.out


def test_one_of_something_is_told_in_the_singular(command: Any, asking: Asking) -> None:
    command("request")
    asking.desk.answer("a" * 64, "cat", state="draft")
    for letter in "bcdeyz":
        asking.desk.answer(letter * 64, "cat")
    command("collect")
    assert "1 draft," in command("status", text=True)
    assert "1 request was taken back" in command("recall", text=True)


def test_how_often_an_annotator_agrees_is_told_with_the_answers_behind_it() -> None:
    share = {"value": 0.9, "low": 0.79, "high": 0.96, "n": 50, "enough": True}
    few = {**share, "n": 3, "enough": False}
    person = {"annotator": "ann", "n": 50, "skipped": 0, "drafts": 0, "rejected": 0}
    person |= {"median_seconds": None, "with_others": share, "with_gold": few}
    assert _annotator(person) == "  by ann: 50 done, 90% like others (79% to 96%, n = 50)"
