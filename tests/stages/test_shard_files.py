"""The files of shards: what is read of them, what is kept, and what is done where they lack."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.stages.sharded import CLUSTER, commits, files, ids_of, shards_of
from tests.training.small_loop import SmallLoop
from visionloop.errors import VisionloopError
from visionloop.inference import embedding
from visionloop.inference.results import FOLDER, LIST, ORDER, RESULT
from visionloop.lake.storage import FileStorage, StorageError, name_of
from visionloop.stages.infer import infer
from visionloop.stages.infer_shard import infer_shard
from visionloop.stages.ingest import ingest
from visionloop.stages.watch import watch


@pytest.fixture
def loop(tmp_path: Path) -> SmallLoop:
    return SmallLoop(tmp_path, cluster=CLUSTER)


def test_no_vector_is_read_to_learn_what_is_finished_and_each_is_read_once_for_the_commit(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 16)
    shards = shards_of(loop)
    read, seen = FileStorage.read, Counter[str]()

    def noted(self: FileStorage, uri: str) -> bytes:
        name = name_of(uri)
        if f"/{FOLDER}/" in uri:
            seen[name] += 1
        return read(self, uri)

    monkeypatch.setattr(FileStorage, "read", noted)
    for one in shards:
        for again in (False, True):
            seen.clear()
            infer_shard(config=loop.config, shard=one)
            lists = {name for name in seen if name.endswith(LIST)}
            assert len(lists) == (3 if again else 0), "a second try sees what the first has left"
            assert all(name.startswith(f"{one}-") for name in lists), "and of no other shard"
            assert set(seen) == lists | {one + ORDER}
    seen.clear()
    assert shards_of(loop) == [], "all is finished"
    assert not [name for name in seen if name.endswith(RESULT)]
    vectors = {name_of(uri) for uri in files(loop.lake) if uri.endswith(RESULT)}
    seen.clear()
    infer(config=loop.config, round_id="0000", n_shards=len(shards))
    assert len(vectors) == 9
    assert {name: n for name, n in seen.items() if name.endswith(RESULT)} == dict.fromkeys(
        vectors, 1
    )
    assert {n for name, n in seen.items() if name.endswith(LIST)} == {1}
    assert files(loop.lake) == []


@pytest.mark.parametrize("failures", [2, 3])
def test_a_shard_goes_on_by_itself_when_the_lake_answers_again(
    loop: SmallLoop, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 16)
    monkeypatch.setattr("visionloop.stages.infer_shard.PAUSES", (0.01, 0.01))
    one, *_ = shards_of(loop)
    write, tried = FileStorage.write, list[str]()

    def failing(self: FileStorage, uri: str, data: bytes) -> None:
        if uri.endswith(RESULT):
            tried.append(uri)
            if 2 <= len(tried) < 2 + failures:
                raise StorageError("no answer", where=uri)
        write(self, uri, data)

    monkeypatch.setattr(FileStorage, "write", failing)
    if failures == 3:
        with pytest.raises(StorageError, match="no answer"):
            infer_shard(config=loop.config, shard=one)
        return
    done = infer_shard(config=loop.config, shard=one)
    assert (done.n_samples, done.n_finished_before) == (40, 0)
    assert len(tried) == 3 + failures, "what was kept before the failure is not done again"
    names = [name for uri in files(loop.lake) if uri.endswith(LIST) for name in ids_of(loop, uri)]
    assert len(names) == len(set(names)) == 40


def test_one_task_does_not_do_alone_what_was_listed_for_many(loop: SmallLoop) -> None:
    first, second, third = shards_of(loop)
    infer_shard(config=loop.config, shard=first)
    with pytest.raises(VisionloopError, match="80 samples were listed in shards") as told:
        infer(config=loop.config, round_id="0000", n_shards=3)
    assert "lists them anew" in told.value.remedy and commits(loop.lake) == 0
    infer_shard(config=loop.config, shard=second)
    infer_shard(config=loop.config, shard=third)
    # Up to as many as are never listed are done here: no node is started for a handful.
    lost = [uri for uri in files(loop.lake) if third in uri and not uri.endswith(ORDER)]
    few = loop.changed("cluster", inline_samples=40, shard_size=40)
    for uri in lost:
        loop.lake.storage.delete(uri)
    assert infer(config=few, round_id="0000", n_shards=3).n_embedded == 120


def test_a_run_that_vanished_with_its_nodes_is_gone_on_with_behind_its_finished_shards(
    loop: SmallLoop,
) -> None:
    first, *_ = shards_of(loop)
    infer_shard(config=loop.config, shard=first, round_id="0000")
    # No task of it could let go of the round: half an hour later only its lease tells.
    held = loop.lake.rounds.current()
    assert held is not None
    elsewhere = {"host": "a-node-that-is-gone", "boot": "", "pid": 0, "started": ""}
    lost = replace(
        held, run_id="lost", holder=elsewhere, updated_at=datetime.now(UTC) - timedelta(minutes=31)
    )
    with loop.lake.run(stage="ingest", round_id="0000", run_id="another") as run:
        run.replace("rounds", lost.row(), "round_id == '0000'")
        run.commit()
    decided = watch(config=loop.config, run_id="next")
    assert (decided.decision, decided.round_id) == ("resume", "0000")
    begun = ingest(config=loop.config, run_id="next", open_round=True, fan_out=True)
    assert (begun.round_id, begun.n_shards) == ("0000", 2) and first not in begun.shards
    for one in begun.shards:
        assert infer_shard(config=loop.config, shard=one).n_finished_before == 0
    done = infer(config=loop.config, round_id="0000", n_shards=begun.n_shards)
    assert done.n_embedded == 120
    assert commits(loop.lake) == 1 and files(loop.lake) == []
