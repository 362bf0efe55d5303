"""The model repository that Triton reads, and an InferenceService that serves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.serving.conftest import CLASSES, SIZE, write_bundle
from visionloop.errors import InputError
from visionloop.inference import OnnxModel
from visionloop.serving.inference_service.triton import export_repository, repository_uri

CONFIG = """name: "clothing"
backend: "onnxruntime"
max_batch_size: 64
input [ { name: "image", data_type: TYPE_FP32, dims: [ 3, 8, 8 ] } ]
output [
  { name: "probabilities", data_type: TYPE_FP32, dims: [ 4 ] },
  { name: "embedding", data_type: TYPE_FP32, dims: [ 6 ] }
]
dynamic_batching { }
"""


def test_the_repository_holds_the_bundles_own_graph_under_the_endpoints_name(
    bundle: Path,
) -> None:
    root = Path(export_repository(str(bundle), "clothing"))
    assert str(root) == repository_uri(str(bundle), "clothing")
    found = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    assert found == ["clothing/1/model.onnx", "clothing/config.pbtxt"]
    assert (root / "clothing/1/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    text = (root / "clothing" / "config.pbtxt").read_text()
    assert text.startswith(CONFIG)
    assert 'key: "model_id" value { string_value: "model-1" }' in text
    # The bundle beside it is still a bundle.
    assert OnnxModel.load(bundle).card.classes == CLASSES


def test_its_configuration_names_what_the_graph_has(bundle: Path) -> None:
    root = Path(export_repository(str(bundle), "clothing"))
    session = onnxruntime.InferenceSession(str(root / "clothing" / "1" / "model.onnx"))
    (image,) = session.get_inputs()
    assert (image.name, image.shape[1:], image.type) == ("image", [3, SIZE, SIZE], "tensor(float)")
    text = (root / "clothing" / "config.pbtxt").read_text()
    for output in session.get_outputs():
        assert f'name: "{output.name}"' in text
    # Triton's own batches need a graph whose first axis is free.
    answers = session.run(None, {"image": np.zeros((5, 3, SIZE, SIZE), np.float32)})
    assert {len(answer) for answer in answers} == {5}


def test_an_export_that_is_there_is_left_and_one_that_was_cut_off_is_finished(
    bundle: Path,
) -> None:
    root = Path(export_repository(str(bundle), "clothing"))
    graph, config = root / "clothing/1/model.onnx", root / "clothing/config.pbtxt"
    before = graph.stat().st_mtime_ns
    export_repository(str(bundle), "clothing")
    assert graph.stat().st_mtime_ns == before
    config.unlink()
    graph.write_bytes(b"cut off")
    export_repository(str(bundle), "clothing")
    assert graph.read_bytes() == (bundle / "model.onnx").read_bytes()


def test_a_broken_bundle_is_not_exported(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "m", "m")
    card = json.loads((folder / "card.json").read_text())
    card["files"]["model.onnx"] = "0" * 64
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="SHA-256 differs"):
        export_repository(str(folder), "clothing")
