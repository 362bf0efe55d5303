"""A backup is one version, verified; a restore is that version again, at another place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.lake.old_lake import BACKUP, LOOP, VERSION, killed, on_disk, restored, rows
from tests.servers import postgresql, postgresql_programs, storage_emulator
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.backup import backup
from visionloop.lake.checking import check
from visionloop.lake.compact import compact
from visionloop.lake.manifest import read_manifest
from visionloop.lake.restore import restore
from visionloop.lake.vacuum import vacuum


@pytest.fixture
def old(tmp_path: Path) -> Lake:
    """Return a lake in a folder with an awkward name, with a pointer to a model and a version."""
    lake = restored(tmp_path / "an old lake, 50%20 off")
    add_model(lake, "m1")
    return lake


def add_model(lake: Lake, model_id: str) -> None:
    """Record a model, store its bundle, and put it into service."""
    uri = lake.path("models", model_id)
    lake.storage.write(f"{uri}/card.json", json.dumps({"model_id": model_id}).encode())
    samples = lake.read("samples")["sample_id"].to_pylist()[:2]
    with lake.run(stage="train", round_id="0000") as run:
        run.append("training_sets", pa.table({"training_set": ["t"] * 2, "sample_id": samples}))
        run.append(
            "experiments",
            pa.table(
                {"model_id": [model_id], "arm": ["loop"], "uri": [uri], "training_set": ["t"],
                 "n_labels": [2], "state": ["in_service"]}
            ),
        )  # fmt: skip
        run.commit()
    pointer = {"model_id": model_id, "model_uri": uri, "published_at": "", "previous": ""}
    lake.storage.write(lake.path("serving", f"{LOOP}.json"), json.dumps(pointer).encode())


def media_bytes(lake: Lake) -> dict[str, bytes]:
    return {sample: lake.storage.read(uri) for sample, uri in lake.media().items()}


def nothing_broken(lake: Lake) -> bool:
    return not [found for found in check(lake) if found.broken]


def test_a_restored_lake_reads_the_same_rows_and_its_round_goes_on(
    old: Lake, tmp_path: Path
) -> None:
    source = on_disk(old.uri)
    made = backup(old, str(tmp_path / "backup"))
    assert on_disk(old.uri) == source
    assert (made.version, made.loop) == (old.version(), LOOP)
    assert {entry.path for entry in made.files} == {
        str(Path(path).relative_to(tmp_path / "backup"))
        for path in on_disk(tmp_path / "backup")
        if not path.endswith("manifest.json")
    }
    lake, _ = restore(str(tmp_path / "backup"), str(tmp_path / "new"))
    assert lake.version() == old.version()
    assert rows(lake) == rows(old)
    assert media_bytes(lake) == media_bytes(old)
    pointer = json.loads(lake.storage.read(lake.path("serving", f"{LOOP}.json")))
    assert pointer["model_uri"] == lake.path("models", "m1")
    assert nothing_broken(lake)
    # The history is kept as records, of which only the last can be read.
    before = old.history()["version"].to_pylist()
    assert lake.history()["version"].to_pylist() == [*before, lake.version()]
    with pytest.raises(InputError, match=r"gone: a vacuum removed them.*the lake was restored"):
        lake.read("files", version=before[-2])
    resumed = lake.rounds.open("next")
    assert (resumed.round_id, resumed.counts["selected"]) == ("0000", 3)


def test_a_round_that_somebody_ran_is_let_go_in_the_restored_lake(
    old: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionloop.lake.rounds._holder", lambda: {"host": "far", "pid": 0})
    old.rounds.open("far-run")
    monkeypatch.undo()
    with pytest.raises(VisionloopError, match="being run by"):
        old.rounds.open("here")
    backup(old, str(tmp_path / "backup"))
    lake, _ = restore(str(tmp_path / "backup"), str(tmp_path / "new"))
    assert lake.rounds.open("here").round_id == "0000"


def test_a_restore_goes_where_nothing_is_and_a_backup_too(old: Lake, tmp_path: Path) -> None:
    place = str(tmp_path / "backup")
    backup(old, place)
    there = on_disk(tmp_path)
    with pytest.raises(InputError, match="destination is not empty"):
        backup(old, place)
    with pytest.raises(InputError, match="inside the lake"):
        backup(old, old.path("backup"))
    with pytest.raises(InputError, match="target is not empty"):
        restore(place, old.uri)
    with pytest.raises(InputError, match="of the loop 'old', not of 'other'"):
        restore(place, str(tmp_path / "new"), loop="other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"target is not empty.*notes\.txt"):
        restore(place, str(tmp_path / "mine"))
    assert {path for path in there if "/." not in path} <= on_disk(tmp_path)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert on_disk(tmp_path / "mine") == {str(tmp_path / "mine" / "notes.txt")}


@pytest.mark.parametrize("fault", ["changed", "missing", "manifest", "none"])
def test_a_damaged_backup_is_refused_before_the_target_is_touched(
    tmp_path: Path, fault: str
) -> None:
    place = tmp_path / "backup"
    shutil.copytree(BACKUP, place)
    part = place / "tables" / "samples" / "00000.parquet"
    if fault == "changed":
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    elif fault == "missing":
        part.unlink()
    elif fault == "manifest":
        text = (place / "manifest.json").read_text()
        (place / "manifest.json").write_text(text.replace('"rows": 12', '"rows": 11', 1))
    else:
        (place / "manifest.json").unlink()
    said = {"changed": "damaged: its SHA-256", "missing": "missing", "manifest": "digest differs",
            "none": "no backup here"}  # fmt: skip
    with pytest.raises(VisionloopError, match=said[fault]):
        restore(str(place), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


DYING = """
    import os, signal, sys
    from visionloop.lake import Lake
    from visionloop.lake.backup import backup
    from visionloop.lake.restore import restore
    from visionloop.lake.storage import FileStorage
    from visionloop.lake import tables

    left = int(sys.argv[3])

    def dying(function):
        def call(*arguments, **named):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **named)
        return call

    FileStorage.write = dying(FileStorage.write)
    tables.create_table = dying(tables.create_table)
"""


@pytest.mark.parametrize("steps", [0, 8])
def test_a_backup_that_is_killed_is_no_backup_and_can_be_made_again(
    tmp_path: Path, steps: int
) -> None:
    lake = restored(tmp_path / "lake")
    assert lake.version()
    source = on_disk(lake.uri)
    place = tmp_path / "backup"
    killed(
        DYING + "    backup(Lake.open(sys.argv[1], loop='old'), sys.argv[2])",
        lake.uri,
        str(place),
        str(steps),
    )
    with pytest.raises(InputError, match="not finished" if steps else "no backup here"):
        read_manifest(str(place))
    assert on_disk(lake.uri) == source
    made = backup(lake, str(place))
    left = {path for path in on_disk(place) if "/." not in path}
    assert len(left) == len(made.files) + 1
    assert rows(restore(str(place), str(tmp_path / "new"))[0]) == rows(lake)


@pytest.mark.parametrize("steps", [1, 18, 24])
def test_a_restore_that_is_killed_is_no_lake_and_can_be_run_again(
    tmp_path: Path, steps: int
) -> None:
    target = tmp_path / "lake"
    backed_up = on_disk(BACKUP)
    killed(DYING + "    restore(sys.argv[1], sys.argv[2])", str(BACKUP), str(target), str(steps))
    assert on_disk(BACKUP) == backed_up
    with pytest.raises(VisionloopError, match="restore of this lake was interrupted"):
        Lake.open(str(target), loop=LOOP).version()
    other = tmp_path / "other"
    backup(restored(tmp_path / "second"), str(other))
    with pytest.raises(InputError, match="restore of another backup was interrupted here"):
        restore(str(other), str(target))
    lake, _ = restore(str(BACKUP), str(target))
    assert lake.version() == VERSION
    assert rows(lake) == rows(Lake.open(str(tmp_path / "second"), loop=LOOP))
    assert nothing_broken(lake)


def test_a_backup_beside_a_writer_is_of_one_version(lake: Lake, tmp_path: Path) -> None:
    program = """
        import sys, time, pyarrow as pa
        from visionloop.lake import Lake
        lake = Lake.open(sys.argv[1], loop="test")
        for i in range(100):
            time.sleep(0.05)
            with lake.run(stage="ingest") as run:
                run.append("files", pa.table({"uri": [f"u{i}"], "state": ["skipped"]}))
                run.append("decisions", pa.table({"subject": [f"u{i}"]}))
                run.commit()
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), lake.uri])
    try:
        while not lake.version():
            assert writer.poll() is None
            time.sleep(0.1)
        made = backup(lake, str(tmp_path / "backup"))
        found, _ = restore(str(tmp_path / "backup"), str(tmp_path / "new"))
        files, decisions = found.read("files"), found.read("decisions")
        assert sorted(files["uri"].to_pylist()) == sorted(decisions["subject"].to_pylist())
        assert made.tables["stage_runs"]["rows"] == files.num_rows
        assert rows(found) == rows(lake, made.version)
    finally:
        writer.kill()
        writer.wait()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with storage_emulator() as address:
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p",
            b'{"name": "backups"}',
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request).read()
        before = os.environ.get("STORAGE_EMULATOR_HOST")
        os.environ["STORAGE_EMULATOR_HOST"] = address
        yield "gs://backups"
        if before is None:
            del os.environ["STORAGE_EMULATOR_HOST"]


def test_a_lake_moves_into_a_bucket_and_out_of_it_again(
    old: Lake, bucket: str, tmp_path: Path
) -> None:
    backup(old, f"{bucket}/one")
    there, _ = restore(f"{bucket}/one", f"{bucket}/lake", catalog=f"sqlite:///{tmp_path}/c.db")
    assert rows(there) == rows(old)
    held = old.embeddings("pixels_9984290f")
    some = there.embeddings("pixels_9984290f", held[0][3:5])
    assert len(some[0]) == 2 and some[0] == held[0][3:5] and (some[1] == held[1][3:5]).all()
    assert all(uri.startswith(f"{bucket}/lake/media/") for uri in there.media().values())
    assert nothing_broken(there)
    with pytest.raises(InputError, match="target is not empty"):
        restore(f"{bucket}/one", f"{bucket}/lake", catalog=f"sqlite:///{tmp_path}/other.db")
    there.storage.write(f"{bucket}/lake/{LOOP}/files/data/stray.parquet", b"left")
    done = vacuum(there, keep_versions=1, safety=timedelta(0))
    assert done.tables["files"].files == 1 and rows(there) == rows(old)
    with there.run(stage="infer", round_id="0000") as run:
        for name, vector in zip(*held, strict=True):
            run.append_embeddings("again", [name], vector[None])
        run.commit()
    before = rows(there)
    assert compact(there, only=["embeddings_again"]).tables["embeddings_again"].into == 1
    assert rows(there) == before and nothing_broken(there)
    backup(there, f"{bucket}/two")
    back, _ = restore(f"{bucket}/two", str(tmp_path / "back"))
    assert rows(back) == before
    assert media_bytes(back) == media_bytes(old)


@pytest.mark.skipif(postgresql_programs() is None, reason="PostgreSQL's server is not installed")
def test_a_restore_may_use_another_catalog_which_must_not_know_the_loop(
    old: Lake, tmp_path: Path
) -> None:
    backup(old, str(tmp_path / "backup"))
    with postgresql() as address:
        lake, _ = restore(str(tmp_path / "backup"), str(tmp_path / "new"), catalog=address)
        assert rows(lake) == rows(old)
        with pytest.raises(InputError, match="holds tables of this loop"):
            restore(str(tmp_path / "backup"), str(tmp_path / "other"), catalog=address)
        vacuum(lake, keep_versions=1, safety=timedelta(0))
        assert nothing_broken(lake)
