"""Answers that cannot be used keep who gave them and when, and the page names them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.labeling.conftest import Asking
from tests.labeling.file_tool import START
from tests.labeling.test_collecting import Page

Answering = Callable[..., Asking]


def _kept(asking: Asking) -> dict[str, dict[str, Any]]:
    return {row["sample_id"][0]: row for row in asking.lake.read("annotations").to_pylist()}


def test_who_gave_an_answer_that_cannot_be_used_and_when_is_kept(answered: Answering) -> None:
    asking = answered()
    before = datetime.now(UTC)
    asking.desk.answer("e" * 64, "cow", who="bob", seconds=4.5)
    asking.desk.answer("f" * 64, "cat", who="bob", rejected="outside", seconds=4.5)
    asking.desk.answer("d" * 64, "cat", who="", rejected="empty")
    asking.collect()
    kept = _kept(asking)
    for letter in "ef":
        told = kept[letter]
        assert (told["state"], told["annotator"], told["seconds"]) == ("rejected", "bob", 4.5)
        assert told["created_at"] == told["updated_at"]
        assert START < told["created_at"] < before
    # A tool that does not tell is asked for nothing more.
    told = kept["d"]
    assert (told["annotator"], told["seconds"]) == (None, None)
    assert told["created_at"] >= before


def test_the_page_names_what_cannot_be_used_and_how_many_requests_it_holds(
    answered: Answering, tmp_path: Path
) -> None:
    asking = answered()
    asking.desk.answer("e" * 64, "cow", who="bob")
    asking.desk.answer("f" * 64, "cat", who="bob", rejected="outside", detail="a | b " * 90)
    page = Page(tmp_path / "page.md")
    asking.collect(page=page)
    text = page.text()
    tasks = {s[0]: task["id"] for s, task in asking.desk.tasks.items()}
    e, f = (f"| {tasks[one]} | {tasks[one]}-bob | {one * 12} | bob |" for one in "ef")
    assert f"{e} unknown class: cow |" in text
    (long,) = [line for line in text.splitlines() if line.startswith(f)]
    assert long.startswith(f"{f} outside: a \\| b a") and long.endswith("… |") and len(long) < 320
    assert "2 requests stay open until these answers are corrected or deleted" in text
    # The label came in another way since: nothing is held any more.
    asking.desk.answer("e" * 64, "cat", who="carl")
    asking.desk.take_away("f" * 64, who="bob")
    asking.collect(page=page)
    text = page.text()
    assert "unknown class: cow" in text and "open until these answers" not in text
