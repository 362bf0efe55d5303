"""The stage `infer` with named weights: each runtime and precision adds to the same space."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.inference.graphs import embedding_graph
from tests.stages.sharded import CLUSTER, shards_of
from tests.training.small_loop import SmallLoop
from visionloop.inference import openvino_graph
from visionloop.inference.session import device
from visionloop.stages.infer import infer
from visionloop.stages.infer_shard import infer_shard


@pytest.mark.skipif(
    not openvino_graph.installed() or device() != "CPU",
    reason="OpenVINO is not installed, or there is a GPU",
)
def test_shards_of_two_runtimes_fill_one_space_and_say_what_they_ran_on(tmp_path: Path) -> None:
    weights = tmp_path / "net.onnx"
    weights.write_bytes(embedding_graph(size=24))
    loop = SmallLoop(tmp_path, cluster=CLUSTER, embedding={"weights": str(weights)})
    page = SimpleNamespace(path=str(tmp_path / "page.md"), uri="", metadata={})
    exact = loop.changed("inference", runtime="onnxruntime")
    first, second, third = shards_of(loop)
    for shard, config, runtime in (
        (first, loop.config, "OpenVINO"),
        (second, exact, "ONNX Runtime"),
    ):
        infer_shard(config=config, shard=shard, page=page)
        assert f"Networks ran on: {runtime} " in Path(page.path).read_text()
    infer_shard(config=loop.changed("inference", precision="float32"), shard=third)
    done = infer(config=exact, round_id="0000", page=page)
    assert done.n_embedded == 120 and loop.lake.spaces() == [done.space]
    assert infer(config=loop.config, round_id="0000").n_embedded == 0, "no runtime embeds anew"
    names, vectors = loop.lake.embeddings(done.space)
    (tmp_path / "other").mkdir()
    alone = SmallLoop(
        tmp_path / "other",
        embedding={"weights": str(weights)},
        inference={"runtime": "onnxruntime"},
    )
    assert infer(config=alone.config, round_id="0000").space == done.space
    others, expected = alone.lake.embeddings(done.space)
    assert names == others
    assert (np.asarray(vectors) * np.asarray(expected)).sum(axis=1).min() > 0.999
