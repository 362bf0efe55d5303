"""Sources that are missing, closed, empty, broken, or change under the reader's eyes."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import SmallLoop, doubled, failure_of, read_only, rights_count
from visionloop.lake.storage import FileStorage, StorageError
from visionloop.stages.ingest import ingest

Command = Callable[..., tuple[int, str, str]]


def test_a_missing_source_is_named(loop: SmallLoop, command: Command) -> None:
    loop.settings["sources"] = [{"uri": str(loop.folder / "bukket")}]
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert "bukket" in err and "does not exist" in err and "Check the path" in err


def test_nothing_is_stored_of_a_good_source_beside_a_missing_one(loop: SmallLoop) -> None:
    good = {"uri": str(loop.bucket)}
    loop.settings["sources"] = [good, {"uri": str(loop.folder / "gone")}]
    told = failure_of(lambda: ingest(config=loop.config))
    assert "gone" in told.what and told.exit_status == 2
    assert loop.lake.read("files").num_rows == 0
    loop.settings["sources"] = [good]
    assert ingest(config=loop.config).n_new > 0


def test_a_folder_that_may_not_be_read_stops_the_ingest_and_the_next_one_succeeds(
    loop: SmallLoop, command: Command
) -> None:
    closed = loop.images()[0].parent
    closed.chmod(0)
    try:
        with rights_count():
            status, _, err = command("ingest", "--config", loop.config)
    finally:
        closed.chmod(0o755)
    assert status == 1
    assert "Permission denied" in err and str(closed) in err and "may be read" in err
    assert loop.lake.read("files").num_rows == 0
    done = ingest(config=loop.config)
    assert done.n_files == len(loop.images()) and not doubled(loop.lake)


def test_a_file_that_may_not_be_read_is_counted_and_tried_again(loop: SmallLoop) -> None:
    closed = loop.images()[3]
    closed.chmod(0)
    with rights_count():
        first = ingest(config=loop.config)
    assert first.n_skipped == 1 and first.n_files == len(loop.images())
    rows = loop.lake.read("files", where="state == 'skipped'").to_pylist()
    assert [row["uri"].endswith(closed.name) for row in rows] == [True]
    closed.chmod(0o644)
    second = ingest(config=loop.config)
    assert second.n_new == 1 and second.n_skipped == len(loop.images()) - 1


def test_a_source_below_a_closed_folder_is_named(loop: SmallLoop, command: Command) -> None:
    loop.settings["sources"] = [{"uri": str(loop.images()[0].parent)}]
    config = loop.config
    loop.bucket.chmod(0)
    try:
        with rights_count():
            status, _, err = command("ingest", "--config", config)
    finally:
        loop.bucket.chmod(0o755)
    assert status in (1, 2)
    assert str(loop.bucket) in err and "right" in err


def test_a_source_that_is_a_file_of_another_kind_is_named(
    loop: SmallLoop, command: Command
) -> None:
    loop.settings["sources"] = [{"uri": str(loop.folder / "loop.yaml")}]
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert "loop.yaml" in err and "not_an_image" in err and "Point `sources` at" in err


def test_a_lake_where_a_file_lies_is_refused(loop: SmallLoop, command: Command) -> None:
    loop.settings["lake"] = "truth.csv"
    before = (loop.folder / "truth.csv").read_bytes()
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert "truth.csv" in err and "Choose a folder" in err
    assert (loop.folder / "truth.csv").read_bytes() == before


def test_folders_that_vanish_while_they_are_listed_are_no_fault(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for number in range(400):
        (root / f"{number:03d}").mkdir(parents=True)
        (root / f"{number:03d}" / "a.png").write_bytes(b"x")
    (root / "stays.png").write_bytes(b"x")

    def remove() -> None:
        for folder in sorted(root.iterdir(), reverse=True):
            if folder.is_dir():
                shutil.rmtree(folder)

    remover = threading.Thread(target=remove)
    remover.start()
    while remover.is_alive():
        listed = [info.uri for info in FileStorage().list(str(root))]
        assert any(uri.endswith("stays.png") for uri in listed)
    remover.join()


def test_a_root_that_vanishes_while_it_is_listed_is_a_fault(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    outcomes = set()
    for _ in range(20):
        for number in range(60):
            (root / f"{number:02d}").mkdir(parents=True)
        (root / "59" / "a.png").write_bytes(b"x")
        remover = threading.Thread(target=root.rename, args=(tmp_path / "away",))
        remover.start()
        try:
            outcomes.add(len(list(FileStorage().list(str(root)))))
        except StorageError as error:
            assert str(root) in error.where and error.remedy
        remover.join()
        shutil.rmtree(tmp_path / "away")
    assert 0 not in outcomes


def test_an_empty_source_is_told_and_a_later_run_goes_on(loop: SmallLoop, command: Command) -> None:
    aside = loop.folder / "aside"
    loop.bucket.rename(aside)
    loop.bucket.mkdir()
    status, _, err = command("ingest", "--config", loop.config)
    assert status == 2
    assert "hold no images" in err and str(loop.bucket) in err and "Put images there" in err
    loop.bucket.rmdir()
    aside.rename(loop.bucket)
    assert loop.take_in() == "0000"
    assert loop.label() > 0


def test_only_unreadable_files_are_counted_told_and_kept(loop: SmallLoop) -> None:
    good = {path: path.read_bytes() for path in loop.images()}
    for path in good:
        path.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    told = failure_of(lambda: ingest(config=loop.config, run_id="test", open_round=True))
    assert told.exit_status == 2 and f"none of the {len(good)} files" in told.what
    states = loop.lake.read("files")["state"].to_pylist()
    assert states == ["unreadable"] * len(good)
    for path, data in good.items():
        path.write_bytes(data)
    assert loop.take_in() == "0000"
    assert not doubled(loop.lake)


def test_a_later_intake_that_finds_nothing_new_goes_on_with_what_is_there(
    loop: SmallLoop,
) -> None:
    loop.take_in()
    again = ingest(config=loop.config)
    assert again.n_new == 0 and again.n_files == again.n_skipped == len(loop.images())
    assert loop.label() > 0


@pytest.mark.parametrize("copy", [False, True])
def test_read_only_media_are_taken_in_and_labelled(loop: SmallLoop, copy: bool) -> None:
    loop.settings["sources"][0]["copy"] = copy
    before = sorted((str(p), p.stat().st_mtime_ns) for p in loop.bucket.rglob("*"))
    with read_only(loop.bucket):
        loop.take_in()
        assert loop.label() > 0
    assert sorted((str(p), p.stat().st_mtime_ns) for p in loop.bucket.rglob("*")) == before


def test_a_read_only_lake_is_read_and_not_written(loop: SmallLoop, command: Command) -> None:
    loop.take_in()
    version = loop.lake.version()
    loop.images()[0].write_bytes(loop.images()[1].read_bytes() + b" ")
    with read_only(loop.folder / "lake"):
        status, out, _ = command("select", "--config", loop.config, "-n", "3")
        assert status == 0 and "3 selected" in out
        status, _, err = command("ingest", "--config", loop.config)
        assert status == 1
        assert str(loop.folder / "lake") in err and "may be written" in err
    assert loop.lake.version() == version
    assert ingest(config=loop.config).n_files == len(loop.images())
    assert not doubled(loop.lake)
