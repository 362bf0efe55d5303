"""An erased sample is nowhere in the lake, and everything else is where it was."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.lake import erasable
from tests.lake.erasable import (
    MODEL,
    SPACE,
    command,
    erase_all,
    exchange,
    identity,
    picture,
    rest,
    small,
    vector,
)
from tests.lake.old_lake import on_disk
from tests.media.pictures import encoded, photograph
from tests.media.test_metadata_sources import World
from visionloop.cli import main
from visionloop.errors import InputError, StaleRead, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.erasing.beside import JOURNAL
from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.serving.segments import Position, Reader, find, is_unread

GONE = 0
LEFT = [1, 2, 3, 4]
NO_BUNDLE = "models: every bundle is whole"


@dataclass
class Erased:
    """A lake from which a sample was erased, and what was there before."""

    root: Path
    lake: Lake
    before: dict[str, list[dict[str, Any]]]
    versions: list[str]
    files: set[str]
    told: dict[str, Any]
    dry: dict[str, Any]
    status: int


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Erased]:
    """Erase one of five samples, by the command."""
    import contextlib
    import io

    root = tmp_path_factory.mktemp("erased")
    lake = erasable.make(root)
    before = erasable.content(lake)
    versions = [row["version"] for row in lake.history().to_pylist()]
    arguments = ["erase", "--lake", lake.uri, identity(GONE), "--yes", "--json"]
    told = []
    there = on_disk(lake.uri)
    for more in (["--dry-run"], []):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main([*arguments, *more])
        told.append(json.loads(printed.getvalue()))
        if more:
            assert on_disk(lake.uri) == there, "a dry run has changed files"
            assert Lake.open(lake.uri, loop="test").version() == versions[-1]
    lake = Lake.open(lake.uri, loop="test")
    yield Erased(root, lake, before, versions, there, told[1], told[0], status)


def test_nothing_on_the_disk_tells_of_an_erased_sample(erased: Erased) -> None:
    name = identity(GONE)
    # Not by our scanner: what lies there as it is, names of files included.
    wanted = [name[:12].encode(), bytes.fromhex(name), picture(GONE)[50:100]]
    wanted += [vector(GONE).tobytes(), b"camera%200.jpg", b"camera 0.jpg"]
    for path in sorted(on_disk(erased.lake.uri)):
        data = Path(path).read_bytes()
        if path.endswith(".gz"):
            data += gzip.decompress(data)
        assert not [one for one in wanted if one in data], path
        assert name not in path
    assert erased.status == 0
    proof = erased.told["proof"]
    assert (proof["finds"], proof["events"], proof["undecoded"]) == ({}, 0, [])
    assert proof["files"] == len(on_disk(erased.lake.uri))
    assert proof["bytes"] > 0 and proof["unpacked"] > 0


def test_every_row_of_other_samples_stays_as_it_was(erased: Erased) -> None:
    name, after = identity(GONE), erasable.content(erased.lake)
    for table, rows in erased.before.items():
        about = {"sample_id", "subject"}
        own = [r for r in rows if not any(r.get(one) == name for one in about)]
        if table == "harvest_events":
            own = [r for r in rows if r["event_id"] != f"e{GONE}"]
        if table == "training_sets":
            continue
        if name in str(own):  # they named it
            assert len(after[table]) == len(own), table
            continue
        assert sorted(map(str, after[table])) == sorted(map(str, own)), table
    ids, vectors = erased.lake.embeddings(SPACE)
    assert ids == sorted(identity(number) for number in LEFT)
    assert {one.tobytes() for one in vectors} == {vector(number).tobytes() for number in LEFT}
    for number in LEFT:
        copy = erased.lake.path("media", identity(number)[:2], f"{identity(number)}.jpeg")
        assert erased.lake.storage.read(copy) == picture(number)


def test_rows_that_named_the_sample_name_it_no_more(erased: Erased) -> None:
    after = erasable.content(erased.lake)
    assert {r["nearest_chosen"] for r in after["selections"]} == {*map(identity, LEFT[1:]), None}
    flags = [(row["subject"], json.loads(row["evidence"])) for row in after["flags"]]
    evidence = [told["of"] for _, told in flags]
    assert all(told["images"] == [subject, told["of"]] for subject, told in flags)
    (stone,) = Tombstones.of(erased.lake).names.values()
    assert sorted(evidence) == sorted([*map(identity, LEFT[1:]), stone])
    told = json.loads(after["decisions"][0]["inputs"])
    assert told == {"seen": [stone, *map(identity, LEFT)], "short": f"{stone}…"}


def test_a_training_set_keeps_its_digest_and_a_tombstone(erased: Erased) -> None:
    before, after = erased.before["training_sets"], erasable.content(erased.lake)["training_sets"]
    (stone,) = Tombstones.of(erased.lake).names.values()
    assert {r["training_set"] for r in after} == {r["training_set"] for r in before}
    held = {row["position"]: (row["sample_id"], row["label"]) for row in after}
    assert held[GONE] == (stone, None)
    assert [held[n] for n in LEFT] == [(identity(n), "cat") for n in LEFT]
    assert identity(GONE) in Tombstones.of(erased.lake)
    assert identity(1) not in Tombstones.of(erased.lake)


def test_versions_that_held_the_sample_say_what_became_of_them(erased: Erased) -> None:
    for version in erased.versions:
        with pytest.raises(InputError, match="samples of it were erased"):
            erased.lake.read("files", version=version)
    assert erased.told["dropped"]["test"]["versions"] == erased.versions
    assert [
        found for found in check(erased.lake) if found.broken and found.check != NO_BUNDLE
    ] == []


def test_the_events_of_others_stay_where_they_were(erased: Erased) -> None:
    (logged,) = erased.told["events"]
    assert (logged["lines"], len(logged["files"])) == (2, 1)
    ledger = {r["uri"]: r for r in erased.lake.read("harvest_ledger").to_pylist()}
    found = find(erased.lake.path("events"))
    assert not any(
        is_unread(one, Position(ledger[one.uri]["bytes_read"], ledger[one.uri]["lines_read"]))
        for one in found
    ), "a harvest would read lines again"
    events = [event for one in found for event in Reader(one, Position()).events()]
    assert [event.event_id for event in events] == [f"e{n}" for n in LEFT for _ in range(2)]
    assert not [event for event in events if event.problem]


def test_files_beside_the_tables_lose_what_tells_of_it(erased: Erased) -> None:
    gone = set(erased.told["beside"]["removed"])
    assert {"reports/test.html", "report.html", "training/test/m1/samples.parquet"} < gone
    assert {"shards/test/ingest-1.part.parquet", "training/test/m1/plan.json"} < gone
    text = erased.lake.storage.read(erased.lake.path("label_requests", "test-0000.csv")).decode()
    assert [row.split(",")[0] for row in text.splitlines()] == ["sample_id", *map(identity, LEFT)]


def test_what_is_out_of_reach_and_what_has_learnt_from_it_is_named(erased: Erased) -> None:
    told = erased.told
    assert told["tasks"] == [f"label-studio: task-{GONE}"]
    assert told["runs"] == ["run-1", "run-2", "run-3"]
    assert [(one["model_id"], one["state"]) for one in told["models"]] == [(MODEL, "in_service")]
    (original,) = told["originals"]
    assert original.endswith("camera%200.jpg")
    assert (erased.root / "source" / "camera 0.jpg").exists(), "it is not the lake's"


def test_a_dry_run_tells_what_is_going_to_be_done(erased: Erased) -> None:
    dry, done = erased.dry, erased.told
    assert dry["proof"] is None and dry["dry_run"]
    for part in ("beside", "events", "models", "tasks", "originals"):
        assert dry[part] == done[part], part
    for table, one in done["tables"].items():
        assert dry["tables"][table]["changed"] == one["changed"], table
        if table != "test.predictions":  # there a killed run left more
            assert dry["tables"][table]["removed"] == one["removed"], table


def test_an_erased_sample_is_named_again_only_for_a_proof(
    erased: Erased, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = command(capsys, erased.lake, identity(GONE), "--yes")
    assert status == 0
    assert "found 0" in text and f"{MODEL} (in_service, loop test)" in text
    assert erased.lake.version() == Lake.open(erased.lake.uri, loop="test").version()


def test_what_is_left_is_named_and_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = small(tmp_path)
    stray = tmp_path / "lake" / "notes" / "mine.json.gz"
    stray.parent.mkdir()
    stray.write_bytes(gzip.compress(json.dumps({"keep": identity(GONE)}).encode()))
    status, text = command(capsys, lake, identity(GONE), "--yes")
    assert status == 1
    assert "notes/mine.json.gz: id" in text
    assert lake.storage.exists(lake.path(JOURNAL)), "it has not ended"
    stray.unlink()
    status, text = command(capsys, lake, "--yes")
    assert (status, lake.storage.exists(lake.path(JOURNAL))) == (0, False)


def test_what_a_kill_tore_goes_and_what_else_cannot_be_unpacked_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = small(tmp_path)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"sample_id": [identity(GONE)] * 9}), sink, compression="zstd")
    torn = sink.getvalue().to_pybytes()[:-9]
    root = tmp_path / "lake"
    left = [
        root / "test" / "files" / "data" / "99999-torn.parquet",
        root / "shards" / "test" / ".ingest-a.part.parquet.abcd1234",
        root / "shards" / "test" / "ingest-b.part.parquet",
    ]
    mine = root / "notes" / "mine.parquet"
    for path in (*left, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(torn)
    status, text = command(capsys, lake, identity(GONE), "--yes")
    assert status == 1
    assert f"what it holds cannot be told: file://{mine}; remove it" in text
    assert [path for path in left if path.exists()] == []
    assert mine.exists() and lake.storage.exists(lake.path(JOURNAL)), "it has not ended"
    mine.unlink()
    assert command(capsys, lake, "--yes")[0] == 0
    assert not lake.storage.exists(lake.path(JOURNAL))
    assert rest(lake) == ([identity(1)], [identity(1)])


def test_a_round_that_a_live_run_holds_is_waited_for_or_refused(tmp_path: Path) -> None:
    lake = small(tmp_path)
    with lake.run(stage="open_round", round_id="0000", run_id="far") as run:
        holder = json.dumps({"host": "elsewhere", "boot": "x", "pid": 1})
        from datetime import UTC, datetime

        now = [datetime.now(UTC)]
        run.append(
            "rounds",
            pa.table(
                {"round_id": ["0000"], "run_id": ["far"], "state": ["running"], "holder": [holder],
                 "opened_at": now, "updated_at": now}
            ),
        )  # fmt: skip
        run.commit()
    there = on_disk(lake.uri)
    with pytest.raises(VisionloopError, match="round 0 is being run by run 'far'"):
        erase_all(lake, identity(GONE), wait=0.1)
    assert on_disk(lake.uri) == there
    assert erase_all(lake, identity(GONE), lease_minutes=0.0).proof is not None


def test_a_stage_that_read_before_an_erasure_writes_nothing_after_it(tmp_path: Path) -> None:
    lake = small(tmp_path)
    with pytest.raises(StaleRead, match="samples were erased"), lake.run(stage="infer") as run:
        erase_all(Lake.open(lake.uri, loop="test"), identity(GONE))
        run.append("predictions", pa.table({"sample_id": [identity(GONE)], "model_id": ["m"]}))
    with lake.run(stage="infer") as run:
        run.append("predictions", pa.table({"sample_id": [identity(1)], "model_id": ["m"]}))
        run.commit()


def test_an_original_is_deleted_when_asked_and_while_it_is_the_sample(tmp_path: Path) -> None:
    lake = small(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for name, data in {"0.jpg": picture(GONE), "edited.jpg": picture(3)}.items():
        (source / name).write_bytes(data)
    with lake.run(stage="ingest") as run:
        uris = [f"file://{source}/0.jpg", f"file://{source}/edited.jpg"]
        rows = {"uri": uris, "generation": ["1", "1"], "state": ["ok"] * 2,
                "sample_id": [identity(GONE)] * 2}  # fmt: skip
        run.append("files", pa.table(rows))
        run.commit()
    done = erase_all(lake, identity(GONE), delete_source=True)
    assert done.deleted == [f"file://{source}/0.jpg"]
    assert done.originals[f"file://{source}/edited.jpg"] == "holds other bytes now"
    assert sorted(path.name for path in source.iterdir()) == ["edited.jpg"]


def test_what_another_sample_shares_stays(tmp_path: Path) -> None:
    lake = small(tmp_path)
    twin = identity(7)
    shared = "file:///camera/0.jpg"  # it was overwritten: another sample lies there now
    with lake.run(stage="ingest") as run:
        rows = {"uri": [shared], "generation": ["2"], "state": ["ok"], "sample_id": [twin]}
        run.append("files", pa.table(rows))
        run.append_embeddings(SPACE, [twin], vector(GONE)[None])
        run.commit()
    done = erase_all(lake, identity(GONE))
    assert done.proof is not None and done.proof.clean
    held = {row["uri"]: row["sample_id"] for row in lake.read("files").to_pylist()}
    assert held[shared] == twin
    ids, vectors = lake.embeddings(SPACE)
    assert np.array_equal(vectors[ids.index(twin)], vector(GONE))


def test_unharvested_events_and_objects_of_the_blob_logger_go_too(tmp_path: Path) -> None:
    lake = small(tmp_path)
    folder = tmp_path / "lake" / "events"
    folder.mkdir()
    (folder / "a.events.jsonl").write_bytes(b"".join([*exchange(GONE), *exchange(1)]))
    asked = json.loads(exchange(GONE)[0])
    record = {
        "id": "blob",
        "reqType": asked["headers"]["ce-type"],
        "contentType": "application/json",
        "bytes": asked["body_b64"],
    }
    (folder / "blob-request.json").write_text(json.dumps(record))
    done = erase_all(lake, identity(GONE))
    assert done.proof is not None and done.proof.clean
    assert [path.name for path in folder.iterdir()] == ["a.events.jsonl"]
    lines = (folder / "a.events.jsonl").read_bytes()
    assert [line for line in lines.splitlines(keepends=True) if line.strip()] == exchange(1)
    assert len(lines) == len(b"".join([*exchange(GONE), *exchange(1)]))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["abc"], "'abc' is no sample's id"),
        ([], "no sample was named"),
        (["f" * 64, "--yes"], "the lake holds nothing of 1 samples"),
        ([identity(1)], "there is no terminal to ask"),
    ],
)
def test_what_cannot_be_erased_is_told_and_nothing_is_done(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    lake = _shared_small(tmp_path_factory)
    there = on_disk(lake.uri)
    status = main(["erase", "--lake", lake.uri, *options])
    assert (status, told in capsys.readouterr().err) == (2, True)
    assert on_disk(lake.uri) == there


_SMALL: dict[str, Lake] = {}


def _shared_small(factory: pytest.TempPathFactory) -> Lake:
    if not _SMALL:
        _SMALL["lake"] = small(factory.mktemp("small"))
    return _SMALL["lake"]


def test_ids_are_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = small(tmp_path)
    names = tmp_path / "ids.txt"
    names.write_text(f"# asked for on Monday\n{identity(0).upper()}  # a\n\n{identity(1)}\n")
    status, text = command(capsys, lake, "--from", str(names), "--yes")
    assert status == 0 and text.startswith("2 samples were erased")
    assert rest(lake) == ([], [])


def test_a_file_names_its_sample_and_the_same_picture_elsewhere_and_tables_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path)
    photo = world.photo("1.png", 1)
    world.put("1 again.jpg", encoded(photograph(64, 48, 1), "JPEG", quality=90))
    world.photo("2.png", 2)
    world.put("metadata.csv", "file_name,weather\n1.png,fog\n")
    world.ingest()
    ids = {Path(row["uri"]).name: row["sample_id"] for row in world.rows("samples")}
    config = tmp_path / "loop.yaml"
    config.write_text(json.dumps(world.settings))
    asked = ["erase", str(photo), "--config", str(config)]
    assert main([*asked, "--yes"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 sample was erased")
    assert ids["1%20again.jpg"] in told and ids["2.png"] not in told
    assert f"{world.source.as_uri()}: a table, list or set there names them" in told
    assert main([*asked, "--yes"]) == 0
    assert capsys.readouterr().out.startswith("nothing was left to erase of 1 sample")
