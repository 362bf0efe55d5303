"""The monitor's page and the words of evidence: names, units, the worst first, every kind."""

from __future__ import annotations

import json
from typing import Any

from tests.selection.small_lake import NOW, put
from visionloop.lake import Lake
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.telling import evidence_lines, measured
from visionloop.monitoring.unjudged import Unjudged
from visionloop.stages.monitor_page import monitor_page


def row(subject: str, kind: str, score: float | None = None, **evidence: Any) -> dict[str, Any]:
    return {
        "subject": subject,
        "subject_type": evidence.pop("of", "sample"),
        "kind": kind,
        "score": score,
        "threshold": None if score is None else 0.5,
        "evidence": json.dumps(evidence),
        "flagged_at": NOW,
    }


def test_samples_are_named_by_their_files_and_the_worst_comes_first(lake: Lake) -> None:
    names = [f"{i:064x}" for i in range(3)]
    put(
        lake,
        "samples",
        [{"sample_id": s, "uri": f"file:///cam/street%20{i}.jpg"} for i, s in enumerate(names)],
    )
    new = [row(s, "blurred", 0.4 - 0.1 * i) for i, s in enumerate(names)]
    new.append(row("train", "failed_stage", 1.0, of="stage", what="no space"))
    text = monitor_page(lake, lake.version(), new, ["## Files\n\nall of them\n"])
    places = [text.index(f"street {i}.jpg") for i in (2, 1, 0)]
    assert places == sorted(places)
    # What has to be acted on comes before what is good to know.
    assert text.index("A stage failed") < text.index("Blurred")
    assert names[0] not in text and "{" not in text and "all of them" in text


def test_when_the_table_is_cut_every_kind_is_there_and_the_rest_is_counted(lake: Lake) -> None:
    put(lake, "samples", [{"sample_id": "a", "uri": "file:///a.jpg"}])
    new = [row(f"s{i}", kind, 0.1) for kind in KINDS for i in range(40)]
    text = monitor_page(lake, lake.version(), new, [])
    table = text.split("| what | of | evidence |")[1]
    for kind in KINDS.values():
        assert f"| {kind.title} |" in table
    shown = sum(line.startswith("| ") and "---" not in line for line in table.splitlines())
    assert shown >= len(KINDS)
    assert f"{len(new) - shown:,} more flags are in the lake." in text


def test_names_from_data_are_shown_and_not_obeyed(lake: Lake) -> None:
    put(lake, "samples", [{"sample_id": "a", "uri": "file:///%3Cimg%20src=x%3E.jpg"}])
    new = [row("a", "label_suspect", 0.1, label="**cat**", suggested="<b>dog</b>")]
    text = monitor_page(lake, lake.version(), new, [])
    assert "<img" not in text and "<b>" not in text and "**cat**" not in text


def test_without_new_flags_the_page_says_so_and_what_stands_from_before(lake: Lake) -> None:
    assert "Standing" not in monitor_page(lake, "", [], [])
    held = [row(s, "label_suspect", 0.1) for s in "ab"] + [row("a", "blurred", 0.1)]
    put(lake, "flags", held)
    text = monitor_page(lake, lake.version(), [], [])
    assert "Nothing new was flagged." in text
    assert "Standing from before: Labels in doubt: 2." in text
    assert "Labels in doubt: 1." in monitor_page(lake, lake.version(), held[:1], [])


def test_evidence_is_told_in_words_and_units_without_ids_and_raw_json() -> None:
    told = row(
        "a" * 64,
        "slow_stage",
        4.25,
        unit="times the expected seconds",
        reference="its 12 runs before",
        seconds=425.0,
        images=["b" * 64],
        posterior={"cat": 0.5},
    )
    assert evidence_lines(told) == [
        "4.25, threshold 0.5 (times the expected seconds)",
        "seconds: 425",
        "compared with its 12 runs before",
    ]
    assert evidence_lines(row("n", "near_duplicate", 0.97, unit="likeness, 0 to 1", bits=3)) == [
        "the same as ",
        "3 of 256 bits of the fingerprints differ",
        "likeness 0.97, threshold 0.5 (0 to 1)",
    ]
    failed = row("train", "failed_stage", 2.0, what="No space", remedy="Free some", unit="failures")
    assert evidence_lines(failed) == ["No space", "Free some", "2 failures since it succeeded"]
    assert evidence_lines(row("u", "unreadable", 1.0, reason="cut_short"))[0] == "cut short"
    votes = {"ann": "cat", "bob": "dog", "eve": "cat"}
    lines = evidence_lines(row("x", "label_conflict", 0.2, votes=votes))
    assert lines == ["cat: 2", "dog: 1"]


def test_shares_are_percent_and_large_numbers_have_commas() -> None:
    assert [measured(0.0123, "share"), measured(12345.6, "km/h"), measured(2.5, "")] == [
        "1.2%",
        "12,346 km/h",
        "2.5",
    ]


def test_what_was_not_judged_is_listed_and_names_in_it_are_not_obeyed(lake: Lake) -> None:
    one = Unjudged(("camera_silent",), "1 camera has too few: <b>*x*</b> (2).", 1, 10, {"x": 2})
    text = monitor_page(lake, lake.version(), [], [], [one])
    listed = text[text.index("## Not judged: too few to say") :]
    assert "| Camera silent |" in listed and "1 camera has too few" in listed
    assert "<b>" not in listed and "*x*" not in listed
