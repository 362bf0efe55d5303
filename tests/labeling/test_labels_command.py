"""`visionloop labels`: how far people are, ask, collect, take back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.conftest import Asking
from visionloop.cli import main

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
    assert "round 0000 (waiting), FileTool: 8 requested, 2 labelled, 1 skipped, 5 open" in text
    assert "not used: 1 unknown class" in text and "by alice: 2 done, median 3.0 s" in text
    assert "at the tool, of round 0000: 4 of 8 answered" in text


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
    assert "3 requests are open" in command("recall", "--dry-run", text=True)
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
        assert "no round 0007" in command(action, "--round", "0007", status=2)
    with asking.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    assert "no round is open" in command(action, status=2)
    if action == "request":
        assert "round 0000 is over" in command(action, "--round", "0000", status=2)


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
