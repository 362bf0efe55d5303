"""Ingests from Cloud Storage: long listings, a bucket in trouble, objects that are overwritten."""

from __future__ import annotations

import csv
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from tests.bucket_stub import PAGE, Bucket, bucket_stub
from tests.media.ingests import held
from tests.media.test_ingest import Loop, picture
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.inference.prediction import predict_media
from visionloop.interchange.records import Annotated
from visionloop.labeling.csv_file import request_uri
from visionloop.labeling.oracle import sample_uris
from visionloop.lake.checking import check
from visionloop.lake.storage import FileInfo
from visionloop.media import intake
from visionloop.media.inspect import sample_id_of
from visionloop.media.intake import list_sources
from visionloop.media.known import Known
from visionloop.media.pieces import Pieces
from visionloop.stages.import_set import _Places
from visionloop.stages.infer import infer
from visionloop.stages.request_labels import request_labels
from visionloop.training.images import _decode
from visionloop.training.plan import Plan

ROOT = "gs://photos/in"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket_stub() as (address, held):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "20")
        yield held


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path, sources=[{"uri": ROOT}])


def by_name(loop: Loop) -> dict[str, list[tuple[str, str, str]]]:
    """State, reason and generation of each row of `files`, by the object's name."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in sorted(loop.rows("files"), key=lambda row: str(row["generation"])):
        name = row["uri"].removeprefix(f"{ROOT}/")
        found.setdefault(name, []).append((row["state"], row["reason"], row["generation"]))
    return found


class Names:
    """Names of objects that are not in memory; notes how many entries are when a page is made."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.alive: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, span: slice) -> list[str]:
        self.alive.append(sum(isinstance(one, FileInfo) for one in gc.get_objects()))
        return [f"in/{i:06}.jpg" for i in range(*span.indices(self.n))]


@pytest.mark.parametrize("n", [8000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_long_listing_reaches_an_ingest_a_page_at_a_time_and_is_nowhere_whole(
    bucket: Bucket, loop: Loop, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(intake, "_BATCH", 500)
    sources = load_config(json.dumps(loop.settings)).sources
    names = Names(n)
    bucket.names = cast(Any, names)
    found = list_sources(sources, Known.read([]), Pieces(loop.lake), order_size=500)
    assert found.weight == n
    # The kind of the source takes a few requests that ask for ten objects or so.
    assert n // PAGE <= bucket.count("list") < n // PAGE + 10
    # Two batches, and an order that is being filled.
    assert PAGE / 5 < max(names.alive) < 2 * PAGE


def test_an_ingest_from_a_bucket_in_trouble_leaves_the_rows_of_a_quiet_one(
    bucket: Bucket, tmp_path: Path
) -> None:
    for i in range(24):
        bucket.put(f"in/{i:02}.png", b"no picture" if i == 7 else picture(i % 20))
    bucket.put("in/03.json", b'{"camera": "dock"}')
    lakes = []
    trouble: dict[str, list[int | str]] = {
        "list": [429, "reset"],
        "media": [429, "reset", "cut", 503, "short", "wrong", 500],
    }
    for name in ("quiet", "troubled"):
        bucket.trouble = trouble if name == "troubled" else {}
        (tmp_path / name).mkdir()
        loop = Loop(tmp_path / name, sources=[{"uri": ROOT}])
        assert loop.ingest()[2:6] == (24, 19, 1, 0)
        lakes.append(held(loop.lake))
    assert bucket.trouble == {"list": [], "media": []}, "it all happened"
    assert lakes[0] == lakes[1]
    assert {row["generation"] for row in loop.rows("files")} == {"1001"}


def test_an_object_that_cannot_be_had_is_skipped_and_the_next_ingest_has_it(
    bucket: Bucket, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "1")
    bucket.put("in/a.png", picture(1))
    bucket.trouble["media"] = [503] * 50
    with pytest.raises(InputError, match="1 cannot_read"):
        loop.ingest()
    bucket.trouble.clear()
    assert loop.ingest()[2:6] == (1, 1, 0, 0)
    assert ("ok", "", "1001") in by_name(loop)["a.png"]


def test_the_next_ingest_notices_what_was_overwritten_and_removed(
    bucket: Bucket, loop: Loop
) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        bucket.put(f"in/{name}.png", picture(seed))
    loop.ingest()
    bucket.put("in/b.png", picture(9))
    del bucket.objects["in/c.png"]
    bucket.asked.clear()
    assert loop.ingest()[2:6] == (2, 1, 0, 1)
    assert bucket.count("media") == 1, "what is known is not read again"
    assert by_name(loop) == {
        "a.png": [("ok", "", "1001")],
        "b.png": [("removed", "replaced", "1001"), ("ok", "", "1002")],
        "c.png": [("removed", "gone", "1001")],
    }
    assert {row["sample_id"] for row in loop.rows("samples")} == {
        sample_id_of(picture(seed)) for seed in (1, 2, 3, 9)
    }
    missing = {f["subject"] for f in loop.rows("flags") if f["kind"] == "media_missing"}
    assert missing == {sample_id_of(picture(seed)) for seed in (2, 3)}
    assert not [found for found in check(loop.lake) if found.broken], "it is known, not broken"


def test_nobody_reads_another_picture_under_an_old_id(bucket: Bucket, loop: Loop) -> None:
    ids = [sample_id_of(picture(seed)) for seed in range(12)]
    for seed in range(12):
        bucket.put(f"in/{seed:02}.png", picture(seed))
    loop.ingest()
    changed = ids[4]
    bucket.put("in/04.png", picture(99))  # no ingest has noticed it yet
    lake, media = loop.lake, loop.lake.media()
    told = infer(config=json.dumps(loop.settings))
    assert told.n_embedded == 11
    assert changed not in lake.embeddings(told.space)[0]
    assert reasons(loop, "infer") == {changed: "changed"}
    # Evaluation and training read by the same function; each leaves it out and says so.
    measured = predict_media([], media)
    assert [(one.sample_id, one.reason) for one in measured.unreadable] == [(changed, "changed")]
    plan = SimpleNamespace(
        parameters=SimpleNamespace(image_size=16),
        training_set=SimpleNamespace(sample_ids=sorted(ids)),
        media=media,
    )
    images, unread = _decode(cast(Plan, plan), None)
    assert [(one.sample_id, one.reason) for one in unread] == [(changed, "changed")]
    assert not images[sorted(ids).index(changed)].any()
    # Its bytes are back, in another generation: it is the sample again.
    bucket.put("in/04.png", picture(4))
    assert infer(config=json.dumps(loop.settings)).n_embedded == 1
    assert changed in lake.embeddings(told.space)[0] and reasons(loop, "infer") == {}


def test_nobody_is_asked_of_a_picture_about_another_one(bucket: Bucket, loop: Loop) -> None:
    loop.settings |= {"classes": ["cat", "dog"], "holdout": {"fraction": 0.0}}
    ids = [sample_id_of(picture(seed)) for seed in range(3)]
    for seed in range(3):
        bucket.put(f"in/{seed}.png", picture(seed))
    loop.ingest(open_round=True)
    with loop.lake.run(stage="select", round_id="0000") as run:
        run.append("selections", pa.table({"sample_id": ids, "rank": [0, 1, 2]}))
        run.commit()

    def asked() -> dict[str, str]:
        told = request_labels(config=json.dumps(loop.settings), round_id="0000")
        assert told.n_requested == loop.lake.read("label_requests").num_rows
        uri = request_uri(loop.lake, "0000")
        table = csv.DictReader(loop.lake.storage.read(uri).decode().splitlines())
        return {row["sample_id"]: row["file"] for row in table}

    bucket.put("in/1.png", picture(9))
    assert asked() == {ids[0]: f"{ROOT}/0.png", ids[2]: f"{ROOT}/2.png"}
    assert reasons(loop, "request_labels") == {ids[1]: "changed"}
    # The bytes are back; those of one that was asked about are not there any more.
    bucket.put("in/1.png", picture(1))
    bucket.put("in/2.png", picture(8))
    assert asked() == {ids[0]: f"{ROOT}/0.png", ids[1]: f"{ROOT}/1.png", ids[2]: ""}
    assert reasons(loop, "request_labels") == {ids[2]: "changed"}


@pytest.mark.parametrize("seeds", [(1, 2), (2, 1)])
def test_a_label_of_an_overwritten_file_is_that_of_its_newest_bytes(
    bucket: Bucket, loop: Loop, seeds: tuple[int, int]
) -> None:
    for seed in seeds:
        bucket.put("in/a.png", picture(seed))
        loop.ingest()
    newest = sample_id_of(picture(seeds[1]))
    assert sample_uris(loop.lake) == {f"{ROOT}/a.png": newest}
    with loop.lake.run(stage="import") as run:
        record = Annotated(file="a.png", uri=f"{ROOT}/a.png")
        ((_, sample, _),) = _Places(run).found(iter([record]))
    assert sample == newest


def reasons(loop: Loop, stage: str) -> dict[str, str]:
    """Why each sample that a stage has flagged could not be read."""
    flags = [row for row in loop.rows("flags") if row["stage"] == stage]
    return {row["subject"]: json.loads(row["evidence"])["reason"] for row in flags}
