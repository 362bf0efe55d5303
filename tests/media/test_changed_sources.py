"""Sources that are named otherwise by the next ingest: nothing stands twice, nothing is lost."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.media.sources.making import tar
from tests.media.test_ingest import Loop, picture
from tests.media.test_ingest_places import missing, states
from visionloop.lake.storage import name_of


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path, holdout={"fraction": 0})


def of(loop: Loop, *sources: dict[str, Any]) -> tuple[int, ...]:
    """Ingest from some sources; return files, new, unreadable, skipped."""
    loop.settings["sources"] = [{**one, "uri": str(one["uri"])} for one in sources]
    return tuple(loop.ingest()[2:6])


def twice(loop: Loop) -> list[str]:
    live = Counter(row["uri"] for row in loop.rows("files") if row["state"] != "removed")
    return [uri for uri, n in live.items() if n > 1]


@pytest.mark.parametrize("wider_first", [True, False])
def test_what_went_or_was_overwritten_is_marked_by_a_wider_and_by_a_narrower_source(
    loop: Loop, wider_first: bool
) -> None:
    narrow, wide = {"uri": loop.source / "sub"}, {"uri": loop.source}
    paths = [loop.put(f"sub/{n}.png", picture(n)) for n in range(4)]
    of(loop, *([wide] if wider_first else [narrow]))
    paths[0].unlink()
    paths[1].write_bytes(picture(9))
    os.utime(paths[1], ns=(10**18, 10**18))
    assert of(loop, *([narrow] if wider_first else [wide])) == (3, 1, 0, 2)
    assert twice(loop) == []
    assert sorted(states(loop)["1.png"]) == [("ok", ""), ("removed", "replaced")]
    assert states(loop)["0.png"] == [("removed", "gone")]
    assert missing(loop) == ["0.png", "1.png"]
    version = loop.lake.version()
    of(loop, *([narrow, wide] if wider_first else [wide, narrow]))
    assert loop.lake.version() == version, "nothing more is written"


def test_a_list_says_nothing_of_what_it_does_not_name(loop: Loop) -> None:
    paths = [loop.put(f"{n}.png", picture(n)) for n in range(3)]
    of(loop, {"uri": loop.source})
    paths[0].unlink()
    paths[1].write_bytes(picture(9))
    os.utime(paths[1], ns=(10**18, 10**18))
    listed = loop.folder / "some.txt"
    listed.write_text(f"{paths[1]}\n")
    assert of(loop, {"uri": listed}) == (1, 1, 0, 0)
    assert states(loop)["0.png"] == [("ok", "")] and states(loop)["2.png"] == [("ok", "")]
    assert sorted(states(loop)["1.png"]) == [("ok", ""), ("removed", "replaced")]


def test_hidden_files_and_the_lakes_own_are_not_missed_by_a_folder_above(tmp_path: Path) -> None:
    loop = Loop(tmp_path, holdout={"fraction": 0})
    loop.put(".cache/a.png", picture(1))
    loop.put("b.png", picture(2))
    of(loop, {"uri": loop.source / ".cache"})
    assert of(loop, {"uri": loop.source}) == (1, 1, 0, 0)
    assert states(loop)["a.png"] == [("ok", "")]


def test_a_tar_that_was_met_before_its_source_said_so_is_opened_then(loop: Loop) -> None:
    path = tar(loop.source / "x.tar", {f"{n}.png": picture(n) for n in range(3)})
    loop.put("y.png", picture(9))
    folder = {"uri": loop.source}
    assert of(loop, folder) == (2, 1, 1, 0)
    assert of(loop, {"uri": path}) == (3, 3, 0, 0)
    assert states(loop)["x.tar"] == [("container", "")] and len(loop.rows("files")) == 5
    version = loop.lake.version()
    # A folder that would not open it knows that it is there, with all that it holds.
    assert of(loop, folder) == (4, 0, 0, 4)
    assert of(loop, {**folder, "kind": "tar"}) == (4, 0, 0, 4)
    assert loop.lake.version() == version and missing(loop) == []


def test_a_tar_that_went_and_is_back_is_not_opened_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar(loop.source / "x.tar", {f"{n}.png": picture(n) for n in range(2)})
    source = {"uri": loop.source, "kind": "tar"}
    loop.put("y.png", picture(9))
    of(loop, source)
    aside = path.rename(loop.folder / "x.tar")
    of(loop, {"uri": loop.source})  # a source of another kind at the same place
    assert missing(loop) == ["0.png", "1.png"]
    aside.rename(path)
    monkeypatch.setattr(tarfile, "open", None)
    assert of(loop, source) == (3, 0, 0, 3)
    assert missing(loop) == [] and states(loop)["x.tar"] == [("container", "")]


def test_a_line_that_names_nothing_has_one_row_until_it_names_something(loop: Loop) -> None:
    loop.put("a.png", picture(1))
    listed = loop.put("list.txt", "a.png\ngone.png\n")
    assert of(loop, {"uri": listed}) == (2, 1, 0, 1)
    version = loop.lake.version()
    for _ in range(2):
        assert of(loop, {"uri": listed}) == (2, 0, 0, 2)
    assert states(loop)["gone.png"] == [("skipped", "missing")]
    assert loop.lake.version() == version, "nothing is written anew"
    loop.put("gone.png", picture(2))
    assert of(loop, {"uri": listed}) == (2, 1, 0, 1)
    assert states(loop) == {"a.png": [("ok", "")], "gone.png": [("ok", "")]}


def test_a_label_that_is_another_now_is_flagged_and_the_first_one_stays(loop: Loop) -> None:
    for n in range(4):
        loop.put(f"cat/{n}.png", picture(n))
    source = {"uri": loop.source, "labels": "folder"}
    of(loop, source)
    (loop.source / "dog").mkdir()
    (loop.source / "cat/0.png").rename(loop.source / "dog/0.png")
    loop.put("dog/copy.png", picture(1))
    loop.put("cat/copy.png", picture(2))
    of(loop, source)
    told = {row["subject"]: row for row in loop.rows("flags")}
    first = {name_of(row["source_uri"]): row["sample_id"] for row in loop.rows("samples")}
    assert set(told) == {first["0.png"], first["1.png"]}
    assert {row["kind"] for row in told.values()} == {"label_conflict"}
    assert loop.metrics.metrics["n_label_conflict"] == 2
    (problem,) = json.loads(told[first["0.png"]]["evidence"])["problems"]
    assert "'dog'" in problem and "'cat'" in problem
    assert {row["label"] for row in loop.rows("labels")} == {"cat"}
    version = loop.lake.version()
    of(loop, source)
    assert loop.lake.version() == version, "it is flagged once"


def test_a_corrected_list_is_flagged_not_passed_over(loop: Loop) -> None:
    loop.put("a.png", picture(1))
    listed = loop.put("list.csv", "file,label\na.png,cat\n")
    of(loop, {"uri": listed, "labels": "source"})
    listed.write_text("file,label\na.png,dog\n")
    of(loop, {"uri": listed, "labels": "source"})
    (flag,) = loop.rows("flags")
    assert flag["kind"] == "label_conflict" and "'dog'" in flag["evidence"]
