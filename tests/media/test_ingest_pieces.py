"""An ingest in pieces: over several tasks or killed anywhere, it is as if it ran once."""
# Over 400 lines: one claim, and every way to interrupt an ingest that could break it.

from __future__ import annotations

import json
import os
import random
import re
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.media.ingests import fill, held, in_a_process, settings
from tests.media.pictures import encoded, photograph
from visionloop.errors import VisionloopError
from visionloop.lake import Lake
from visionloop.lake.storage import local_path, name_of
from visionloop.lake.vacuum import vacuum
from visionloop.media import records
from visionloop.media.reading import examine
from visionloop.runner.local import run_pipeline
from visionloop.stages.ingest import IngestOutputs, ingest
from visionloop.stages.ingest_shard import ingest_shard
from visionloop.stages.list_files import list_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    fill(folder)
    return folder


def lake_of(config: str) -> Lake:
    return Lake.open(json.loads(config)["lake"], loop="test")


def shard_files(lake: Lake) -> list[str]:
    folder = lake.path("shards")
    found = lake.storage.list(folder) if lake.storage.exists(folder) else []
    return [name_of(info.uri) for info in found]


# What is left of a file whose writer was killed.
HALF = re.compile(r"\..+\.[a-z0-9_]{8}")


def grow_old(lake: Lake, days: float = 1.1) -> None:
    """Make all that lies in the folder of shards older."""
    for info in lake.storage.list(lake.path("shards")):
        then = info.updated.timestamp() - days * 86_400
        os.utime(local_path(info.uri), (then, then))


def spread(config: str) -> IngestOutputs:
    listed = list_files(config=config)
    assert listed.n_shards == len(listed.shards) > 1
    for one in reversed(listed.shards):
        ingest_shard(config=config, shard=one)
    return ingest(config=config, listing=listed.listing)


def test_shards_give_the_rows_of_one_task(source: Path) -> None:
    alone, several = settings(source, "alone"), settings(source, "several")
    counted = ingest(config=alone)
    assert counted.n_new > 40 and counted.n_duplicates and counted.n_unreadable
    assert spread(several)[2:] == counted[2:]
    assert held(lake_of(several)) == held(lake_of(alone))
    assert len(held(lake_of(alone))["labels"]) == counted.n_new
    for config in (alone, several):
        assert shard_files(lake_of(config)) == []
    assert list_files(config=several).n_files == 0


def test_few_files_are_listed_for_no_shard_and_come_in_all_the_same(source: Path) -> None:
    config = settings(source, "lake", cluster={"inline_samples": 100})
    listed = list_files(config=config, open_round=True, run_id="r")
    assert (listed.round_id, listed.listing, listed.n_shards) == ("0000", "", 0)
    assert shard_files(lake_of(config)) == []
    assert ingest(config=config, round_id="0000", listing="").n_new > 40


def test_a_finished_shard_is_not_examined_again_and_a_missing_one_is_told(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(source, "lake")
    listed = list_files(config=config)
    first, *rest = listed.shards
    done = ingest_shard(config=config, shard=first)
    with pytest.raises(VisionloopError, match="not all of these have left theirs") as told:
        ingest(config=config, listing=listed.listing)
    assert "Start the pipeline again" in told.value.remedy
    again = list_files(config=config)
    assert again.shards == rest and again.listing == listed.listing

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was finished")

    with monkeypatch.context() as patch:
        patch.setattr("visionloop.media.pieces.examine", never)
        assert ingest_shard(config=config, shard=first) == (done.n_files, done.n_files)
    for one in rest:
        ingest_shard(config=config, shard=one)
    ingest(config=config, listing=listed.listing)
    with pytest.raises(VisionloopError, match="not there any more"):
        ingest_shard(config=config, shard=first)


def test_what_a_dead_ingest_has_left_goes_after_a_day_and_what_is_at_work_stays(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(source, "lake")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("visionloop.media.pieces.Pieces.remove", killed)
        ingest(config=config)
    lake = lake_of(config)
    left = shard_files(lake)
    assert left and lake.read("samples").num_rows > 40
    half = local_path(lake.path("shards", lake.loop, ".ingest-abc.part.parquet.a1b2c3d4"))
    half.write_bytes(b"half")
    ingest(config=config)
    assert set(shard_files(lake)) == {*left, half.name}, "it may be started again"

    for number in range(200, 230):
        (source / "cat" / f"{number}.png").write_bytes(encoded(photograph(40, 32, number)))
    listed = list_files(config=config)
    ingest_shard(config=config, shard=listed.shards[0])
    at_work = set(shard_files(lake)) - {*left, half.name}
    assert len(at_work) > 3
    grow_old(lake)
    few = json.loads(config)
    few["sources"][0]["uri"] = str(source / "dog")
    ingest(config=json.dumps(few))
    assert set(shard_files(lake)) == at_work
    for one in listed.shards[1:]:
        ingest_shard(config=config, shard=one)
    assert ingest(config=config, listing=listed.listing).n_new == 30
    assert shard_files(lake) == []


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_listing_of_an_older_lake_is_made_anew(source: Path) -> None:
    config = settings(source, "lake")
    listed = list_files(config=config)
    for one in listed.shards:
        ingest_shard(config=config, shard=one)
    (source / "cat" / "late.png").write_bytes(encoded(photograph(40, 32, 999)))
    n = ingest(config=config).n_new
    assert ingest(config=config, listing=listed.listing).n_new == 0
    rows = lake_of(config).read("samples")
    assert rows.num_rows == n == len(set(rows["sample_id"].to_pylist()))


def test_what_comes_after_the_listing_waits_for_the_next_one(source: Path) -> None:
    config = settings(source, "lake")
    listed = list_files(config=config)
    for one in listed.shards:
        ingest_shard(config=config, shard=one)
    (source / "cat" / "late.png").write_bytes(encoded(photograph(40, 32, 999)))
    before = ingest(config=config, listing=listed.listing).n_files
    assert ingest(config=config)[2:4] == (before + 1, 1)


def test_memory_holds_some_files_of_a_long_ingest(source: Path) -> None:
    from visionloop.config import load_config
    from visionloop.media.sources import MEDIA, open_source

    opened = open_source(load_config(settings(source, "lake")).sources[0])
    entries = [entry for entry in opened.entries() if entry.role == MEDIA]
    taken = []

    def many() -> Any:
        for number in range(3000):
            taken.append(number)
            yield entries[number % len(entries)]

    ahead = max(len(taken) - told for told, _ in enumerate(examine(opened, many())))
    assert ahead < 300


# It dies where its n-th file of the lake is opened, renamed, linked or removed, or its catalog is:
# a moment by the clock would depend on what else the machine does.
CHILD = """
import os, signal, sys
from visionloop.stages.ingest import ingest

config, after = sys.argv[1], int(sys.argv[2])
met = 0

def count(event, arguments):
    global met
    of_file = event in ("open", "os.rename", "os.link", "os.remove")
    if of_file and "/lake-" in str(arguments[0]) or event == "sqlite3.connect":
        met += 1
        if met == after:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
ingest(config=config, run_id="run")
print(met)
"""


def ingested(config: str, die_at: int = 0) -> int:
    """Ingest in a process that dies at a moment; returns its moments, 0 where it died."""
    child = in_a_process(CHILD, config, str(die_at))
    told, errors = child.communicate(timeout=300)
    if die_at and child.returncode == -signal.SIGKILL:
        return 0
    assert child.returncode == 0, errors.decode()
    return int(told.split()[-1])


def killed_again_and_again(source: Path, kills: int, seed: int) -> None:
    """Kill an ingest at random moments, let it end, and compare with one that ran through."""
    once = settings(source, "lake-once", cluster={"shard_size": 24})
    moments = ingested(once)
    assert moments > 50
    expected = held(lake_of(once))
    drawn = random.Random(seed)
    died = lakes = 0
    while died < kills:
        config = settings(source, f"lake-{lakes}", cluster={"shard_size": 24})
        # What is finished is not done again: sooner or later one ends before its moment comes.
        while died < kills and not ingested(config, drawn.randint(2, moments)):
            died += 1
        ingested(config)
        assert held(lake_of(config)) == expected
        # What one has left that died after its commit goes with an ingest of a later day.
        grow_old(lake_of(config))
        ingest(config=config)
        assert shard_files(lake_of(config)) == []
        assert held(lake_of(config)) == expected
        vacuum(lake_of(config), safety=timedelta(0))
        assert held(lake_of(config)) == expected
        root = source.parent / f"lake-{lakes}"
        assert not [path for path in root.rglob(".*") if HALF.fullmatch(path.name)]
        lakes += 1


@pytest.mark.slow
def test_killed_anywhere_and_started_again_it_leaves_the_same_rows(source: Path) -> None:
    killed_again_and_again(source, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_killed_fifty_times_it_leaves_the_same_rows(source: Path, seed: int) -> None:
    killed_again_and_again(source, kills=5, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_local_runner_spreads_an_intake_and_gives_the_rows_of_one_task(
    source: Path, tmp_path: Path
) -> None:
    alone, several = settings(source, "alone"), settings(source, "several")
    ingest(config=alone)
    done = run_pipeline("intake", {"config": several}, tmp_path / "runs", progress=False)
    assert done.succeeded, done.error
    assert [task.name for task in done.tasks].count("ingest_shard") > 1
    lake = lake_of(several)
    rows = held(lake)
    of_monitor = {"round_id", "checked_at"}
    flags = [row for row in lake.read("flags").to_pylist() if row["stage"] == "ingest"]
    expected = held(lake_of(alone))
    assert len(flags) == len(expected.pop("flags")) and of_monitor
    assert {table: rows[table] for table in expected} == expected
    assert shard_files(lake) == []


def test_a_container_whose_task_died_is_gone_on_with_behind_its_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import tarfile

    from visionloop.media import orders, pieces

    monkeypatch.setattr(pieces, "ROWS", 5)
    monkeypatch.setattr(orders, "SMALL", 0, raising=False)
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number in range(23):
            data = encoded(photograph(40, 32, number // 2))
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = {"uri": str(folder), "kind": "tar"}
    told_of = {"sources": [source], "classes": [], "holdout": {"fraction": 0.2, "min_samples": 8}}
    whole, broken = (settings(folder, lake, **told_of) for lake in ("w", "b"))
    counted = ingest(config=whole)
    assert (counted.n_files, counted.n_new, counted.n_duplicates) == (23, 12, 11)
    write, told = pieces.Pieces._put, list[str]()

    def dies(self: pieces.Pieces, name: str, table: Any) -> None:
        told.append(name)
        if sum(one.endswith(pieces.MORE) for one in told) == 3:
            raise KeyboardInterrupt
        write(self, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(pieces.Pieces, "_put", dies)
        with pytest.raises(KeyboardInterrupt):
            ingest(config=broken)
    read = []
    inspect = examine.__globals__["inspect"]
    monkeypatch.setitem(examine.__globals__, "inspect", lambda d: read.append(d) or inspect(d))
    assert ingest(config=broken)[2:] == counted[2:]
    assert len(read) == 23 - 10, "two parts of five were finished"
    assert held(lake_of(broken)) == held(lake_of(whole))
    assert shard_files(lake_of(broken)) == []
    read.clear()
    assert ingest(config=broken)[2:4] == (23, 0) and read == []


def test_labels_that_are_written_some_at_a_time_are_the_same(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.stages import ingest_labels

    table = source.parent / "labels.csv"
    names = sorted(path.name for path in source.rglob("*.png"))[::2]
    table.write_text("file,label\n" + "".join(f"{name},dog\n" for name in names))
    by_folder = {"uri": str(source / "cat"), "labels": "folder"}
    by_table = {"uri": str(source / "dog"), "labels": str(table)}
    at_once, in_parts = (settings(source, lake, sources=[by_folder, by_table]) for lake in "ab")
    ingest(config=at_once)
    sizes: list[int] = []
    write = records.rows_of

    def counted(name: str, rows: Any) -> Any:
        sizes.append(len(rows))
        return write(name, rows)

    monkeypatch.setattr(ingest_labels, "_SOME", 7)
    monkeypatch.setattr(ingest_labels, "rows_of", counted)
    ingest(config=in_parts)
    assert len(sizes) > 5 and max(sizes) <= 7
    told = held(lake_of(in_parts))
    assert told == held(lake_of(at_once)) and {"dog", "cat"} == {
        row["label"] for row in lake_of(in_parts).read("labels").to_pylist()
    }
    refused = settings(source, "c", sources=[by_folder], classes=["dog"])
    with pytest.raises(VisionloopError, match="not in the configuration"):
        ingest(config=refused)
    assert lake_of(refused).read("labels").num_rows == 0


def test_a_pattern_that_fits_no_file_is_flagged_some_files_at_a_time(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.lake.run import Run
    from visionloop.stages import ingest_rows

    sources = [{"uri": str(source), "labels": "folder", "pattern": "{camera}/{date:%Y-%m-%d}.{}"}]
    at_once, in_parts = (settings(source, lake, sources=sources) for lake in "ab")
    counted = ingest(config=at_once)
    sizes: list[int] = []
    append = Run.append

    def noted(self: Run, table: str, rows: Any) -> None:
        if table == "flags":
            sizes.append(rows.num_rows)
        append(self, table, rows)

    monkeypatch.setattr(ingest_rows, "ROWS", 10)
    monkeypatch.setattr(Run, "append", noted)
    assert ingest(config=in_parts)[2:] == counted[2:]
    assert sum(sizes) == counted.n_new and max(sizes) < sum(sizes) / 2
    assert held(lake_of(in_parts)) == held(lake_of(at_once))
    outputs = [
        json.loads(lake_of(one).stage_runs()["outputs"][0].as_py()) for one in (at_once, in_parts)
    ]
    assert outputs[0] == outputs[1] and outputs[0]["n_path_mismatch"] == counted.n_new


# Tells the highest memory of an ingest in MiB.
MEASURED = """
import resource, sys
from visionloop.stages.ingest import ingest

n_new = ingest(config=sys.argv[1], run_id="run").n_new
print(n_new, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_of(folder: Path, n: int) -> float:
    """Return the highest memory in MiB of an ingest of so many tiny pictures, all different."""
    from PIL import Image

    rng = random.Random(n)
    for number in range(n):
        place = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        width, height = rng.randint(3, 8), rng.randint(3, 8)
        data = rng.randbytes(3 * width * height)
        Image.frombytes("RGB", (width, height), data).save(place, compress_level=1)
    sources = [{"uri": str(folder), "pattern": "{camera}/{date:%Y-%m-%d}.{}"}]
    config = settings(folder, f"lake-{n}", sources=sources, cluster={}, holdout={})
    told, errors = in_a_process(MEASURED, config).communicate(timeout=3600)
    n_new, peak = told.split()[-2:]
    assert int(n_new) == n, errors.decode()
    return float(peak)


@pytest.mark.soak
def test_memory_of_many_new_files_is_that_of_what_is_written_at_once(tmp_path: Path) -> None:
    few, many = (peak_of(tmp_path / f"source-{n}", n) for n in (20_000, 100_000))
    print(f"{few:.0f} MiB for 20,000 new files, {many:.0f} MiB for 100,000")
    # Up to 50,000 files wait to be written together, some 7 KiB each where each has a flag.
    assert many - few < 400
