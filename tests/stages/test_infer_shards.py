"""Samples embedded and predicted in shards: as if it had been one task, whatever dies between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.stages.sharded import CLUSTER, commits, embedded, files, predicted, shards_of
from tests.training.small_loop import SmallLoop
from visionloop.errors import VisionloopError
from visionloop.inference import embedding, session
from visionloop.lake import Lake
from visionloop.lake.storage import local_path
from visionloop.lake.vacuum import vacuum
from visionloop.runner.local import run_pipeline
from visionloop.stages.export import export
from visionloop.stages.infer import infer
from visionloop.stages.infer_shard import infer_shard
from visionloop.stages.ingest import ingest
from visionloop.stages.train import train

# A task that dies by SIGKILL after so many chunks of 16 samples were kept.
DYING = """
import os, signal, sys
from visionloop.inference import embedding
from visionloop.stages.infer_shard import infer_shard

config, shard, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
embedding.CHUNK = 16
keep = embedding.write_result


def keep_then_die(*arguments):
    global n
    kept = keep(*arguments)
    n -= 1
    if n == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept


embedding.write_result = keep_then_die
infer_shard(config=config, shard=shard, round_id="0000")
"""


@pytest.fixture
def loop(tmp_path: Path) -> SmallLoop:
    return SmallLoop(tmp_path, cluster=CLUSTER)


def with_a_model_in_service(loop: SmallLoop) -> str:
    loop.label(loop.split("pool")[:30] + loop.split("holdout"))
    trained = train(config=loop.config, round_id="0000")
    export(config=loop.config, round_id="0000", model_id=trained.model_id)
    loop.serve(trained.model_id)
    return trained.model_id


def test_shards_and_one_task_make_the_same_rows_in_one_commit(tmp_path: Path) -> None:
    loops = []
    for name in ("alone", "shards"):
        (tmp_path / name).mkdir()
        loops.append(SmallLoop(tmp_path / name, cluster=CLUSTER))
    alone, spread = loops
    shards = shards_of(spread)
    assert [infer_shard(config=spread.config, shard=one).n_samples for one in shards] == [
        40,
        40,
        40,
    ]
    assert not spread.lake.spaces() and commits(spread.lake) == 0, "a shard commits nothing"
    for loop in loops:
        done = infer(config=loop.config, round_id="0000")
        assert done.n_embedded == 120 and commits(loop.lake) == 1
    (space,) = spread.lake.spaces()
    ids, vectors = spread.lake.embeddings(space)
    others, expected = alone.lake.embeddings(space)
    assert ids == others
    # To the last bit but one: a matrix product's sums follow the number of images in a batch.
    assert np.allclose(vectors, expected, rtol=0, atol=1e-6)
    assert files(spread.lake) == [], "what is committed lies nowhere else"


def test_shards_predict_with_the_model_in_service_and_embed_in_its_space(loop: SmallLoop) -> None:
    infer(config=loop.config, round_id="0000")
    model_id = with_a_model_in_service(loop)
    shards = shards_of(loop)
    assert len(shards) == 3
    for one in shards:
        infer_shard(config=loop.config, shard=one)
    done = infer(config=loop.config, round_id="0000")
    assert (done.n_embedded, done.n_predicted) == (0, 120)
    assert {model for _, model in predicted(loop.lake)} == {model_id}
    assert sorted(len(held) for held in embedded(loop.lake).values()) == [120, 120]


def test_a_shard_says_what_its_models_ran_on_and_that_it_left_a_gpu_idle(
    loop: SmallLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if session.device() == "CUDA":
        pytest.skip("the GPU here is used")
    page = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    first, second, *_ = shards_of(loop)
    infer_shard(config=loop.config, shard=first, page=page)
    text = Path(page.path).read_text()
    assert "pixel descriptor" in text and "ran on" not in text and "GPU" not in text
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(session, "_NVIDIA", str(tmp_path / "nvidiactl"))
    monkeypatch.setattr(session, "_build_has_cuda", lambda: False)
    infer_shard(config=loop.config, shard=second, page=page)
    assert "**There is a GPU, and this build of ONNX Runtime cannot use it" in (
        Path(page.path).read_text()
    )


def test_a_killed_shard_goes_on_behind_what_it_had_finished_and_nothing_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 16)
    loops = []
    for name in ("once", "killed"):
        (tmp_path / name).mkdir()
        loops.append(SmallLoop(tmp_path / name, cluster=CLUSTER))
    once, killed = loops
    first = shards_of(killed)[0]
    died = subprocess.run(
        [sys.executable, "-c", DYING, killed.config, first, "2"], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    again = infer_shard(config=killed.config, shard=first)
    assert (again.n_samples, again.n_finished_before) == (40, 32)
    for loop in loops:
        for one in shards_of(loop):
            infer_shard(config=loop.config, shard=one)
        infer(config=loop.config, round_id="0000")
        assert commits(loop.lake) == 1
    assert embedded(killed.lake) == embedded(once.lake)


def test_a_resumed_run_lists_only_what_no_shard_has_finished(loop: SmallLoop) -> None:
    first, *_ = shards_of(loop)
    infer_shard(config=loop.config, shard=first)
    names = shards_of(loop)
    assert len(names) == 2 and first not in names
    # The same work has the same names, so that a server's cache knows it again.
    assert shards_of(loop) == names


def test_what_no_shard_has_done_is_done_before_the_commit(loop: SmallLoop) -> None:
    first, *_ = shards_of(loop)
    infer_shard(config=loop.config, shard=first)
    metrics = loop.artifact("metrics")
    done = infer(config=loop.config, round_id="0000", metrics=metrics)
    assert done.n_embedded == 120
    assert metrics.logged["n_from_shards"] == 40


def test_an_image_that_cannot_be_read_is_counted_once_and_flagged_once(loop: SmallLoop) -> None:
    shards = shards_of(loop)
    (loop.images / "0003.png").unlink()
    told = [infer_shard(config=loop.config, shard=one) for one in shards]
    assert sum(one.n_unreadable for one in told) == 1
    # A second try of every shard changes nothing, and tries the one again.
    again = [infer_shard(config=loop.config, shard=one) for one in shards]
    assert sorted(one.n_finished_before for one in again) == [39, 40, 40]
    assert sum(one.n_unreadable for one in again) == 1
    metrics = loop.artifact("metrics")
    done = infer(config=loop.config, round_id="0000", metrics=metrics)
    assert done.n_embedded + metrics.logged["n_unreadable"] == 120
    flags = loop.lake.read("flags", where="stage == 'infer'").to_pylist()
    assert [json.loads(flag["evidence"])["reason"] for flag in flags] == ["missing"]
    [row] = loop.lake.stage_runs(where="stage == 'infer'").to_pylist()
    assert json.loads(row["counts"]) == {"in": 120, "ok": 119, "unreadable": 1}


@pytest.mark.parametrize("who", ["the shard", "infer", "nobody"])
def test_what_a_shard_could_not_read_is_tried_again_when_it_is_back(
    loop: SmallLoop, who: str
) -> None:
    shards = shards_of(loop)
    image = loop.images / "0003.png"
    data = image.read_bytes()
    image.unlink()
    assert sum(infer_shard(config=loop.config, shard=one).n_unreadable for one in shards) == 1
    if who != "nobody":
        image.write_bytes(data)
    if who == "the shard":
        again = [infer_shard(config=loop.config, shard=one) for one in shards]
        assert sum(one.n_unreadable for one in again) == 0
    done = infer(
        config=loop.config, round_id="0000", n_shards=len(shards) if who == "the shard" else 0
    )
    assert done.n_embedded == (119 if who == "nobody" else 120)
    flags = loop.lake.read("flags", where="stage == 'infer'").to_pylist()
    assert len(flags) == (1 if who == "nobody" else 0)
    # Whoever comes next finds it back.
    image.write_bytes(data)
    assert infer(config=loop.config, round_id="0000").n_embedded == (1 if who == "nobody" else 0)
    assert loop.lake.read("flags", where="stage == 'infer'").num_rows == 0
    assert [len(held) for held in embedded(loop.lake).values()] == [120]


def test_few_samples_and_none_make_no_shard(loop: SmallLoop) -> None:
    assert shards_of(loop) != []
    many = loop.changed("cluster", inline_samples=120)
    assert ingest(config=many, round_id="0000", fan_out=True).n_shards == 0
    infer(config=loop.config, round_id="0000")
    assert shards_of(loop) == []
    assert ingest(config=loop.config, round_id="0000").n_shards == 0, "nobody asked for shards"


def test_the_size_of_a_shard_is_a_parameter(loop: SmallLoop) -> None:
    assert len(shards_of(loop, shard_size=60)) == 2


def test_a_commit_whose_task_died_before_it_could_say_so_adds_nothing_twice(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in shards_of(loop):
        infer_shard(config=loop.config, shard=one)
    version = loop.lake.version()
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise RuntimeError("the node went away")

        patch.setattr("visionloop.inference.results.remove_done", die)
        with pytest.raises(RuntimeError):
            infer(config=loop.config, lake_version=version, round_id="0000")
    before = embedded(loop.lake)
    assert files(loop.lake)
    assert infer(config=loop.config, lake_version=version, round_id="0000").n_embedded == 0
    assert embedded(loop.lake) == before and files(loop.lake) == []


def test_what_another_run_commits_meanwhile_is_added_once(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in shards_of(loop):
        infer_shard(config=loop.config, shard=one)
    finish = embedding.finish
    others = []

    def slowly(*arguments: Any) -> Any:
        if not others:
            others.append("an hourly intake")
            infer(config=loop.config, round_id="0000")
        return finish(*arguments)

    monkeypatch.setattr(embedding, "finish", slowly)
    assert infer(config=loop.config, round_id="0000").n_embedded == 0
    [held] = embedded(loop.lake).values()
    assert len(held) == 120


def test_a_shard_reads_its_own_list_and_no_table_of_samples_or_vectors(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = shards_of(loop)
    read, tables = Lake.read, set()

    def noted(self: Lake, table: str, **arguments: Any) -> Any:
        tables.add(table)
        return read(self, table, **arguments)

    monkeypatch.setattr(Lake, "read", noted)
    for heavy in ("embeddings", "embedded", "media"):
        monkeypatch.setattr(Lake, heavy, None)
    infer_shard(config=loop.config, shard=one, round_id="0000")
    assert tables <= {"rounds"}


def test_a_shard_whose_list_is_gone_or_was_made_for_other_weights_says_so(
    loop: SmallLoop,
) -> None:
    one, *_ = shards_of(loop)
    other = loop.changed("embedding", dimensions=8)
    with pytest.raises(VisionloopError, match="the shard was listed for the space pixels_"):
        infer_shard(config=other, shard=one)
    with pytest.raises(VisionloopError, match="not there any more") as told:
        infer_shard(config=loop.config, shard="0" * 33)
    assert "Start the pipeline again" in told.value.remedy


def test_a_vacuum_removes_what_nobody_will_commit_and_leaves_an_open_round_its_shards(
    loop: SmallLoop,
) -> None:
    one, *_ = shards_of(loop)
    infer_shard(config=loop.config, shard=one)
    there = files(loop.lake)
    vacuum(loop.lake, safety=timedelta(0))
    assert files(loop.lake) == there != []
    with loop.lake.run(stage="publish", round_id="0000") as run:
        run.set_round(state="done", outcome="kept")
        run.commit()
    for days, left in ((6, there), (8, [])):
        for uri in there:
            then = time.time() - timedelta(days=days).total_seconds()
            os.utime(local_path(uri), (then, then))
        done = vacuum(loop.lake, safety=timedelta(0))
        assert files(loop.lake) == left, "younger ones may be of an intake without a round"
    assert done.tables[""].files == len(there)
    # A task that KFP's cache skipped left nothing: its samples are done before the commit.
    assert infer(config=loop.config, round_id="0000").n_embedded == 120


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_whose_shard_was_killed_is_started_again_and_ends_as_if_it_had_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = SmallLoop(tmp_path, cluster=CLUSTER)
    marker = tmp_path / "killed"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'infer_shard' in sys.argv:\n"
        f"    path = {str(marker)!r}\n"
        "    try:\n"
        "        os.close(os.open(path, os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError:\n"
        "        pass\n"
        "    else:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hook))
    arguments = {"config": spread.config, "open_round": True, "take_over": True}
    broken = run_pipeline("intake", arguments, tmp_path / "runs", progress=False)
    assert marker.exists() and not broken.succeeded
    assert broken.failed_task == "infer_shard"
    assert commits(spread.lake) == 0, "a run that lacks a shard commits nothing"
    whole = run_pipeline("intake", arguments, tmp_path / "runs", progress=False)
    assert whole.succeeded, whole.error
    assert [task.name for task in whole.tasks].count("infer_shard") <= 3
    [held] = embedded(spread.lake).values()
    assert len(held) == 120 and commits(spread.lake) == 1 and files(spread.lake) == []
