"""Small ONNX graphs and model bundles, made without PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from visionloop.inference import ModelCard

CLASSES = ["cat", "dog", "owl"]


def embedding_graph(
    *, size: int = 8, dimension: int = 5, seed: int = 0, batch: int | str = "n", name: str = "out"
) -> bytes:
    """Return a graph from [n, 3, size, size] to a linear map of its pixels, [n, dimension]."""
    weights = np.random.Generator(np.random.PCG64(seed)).standard_normal(
        (3 * size * size, dimension), dtype=np.float32
    )
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], [name]),
    ]
    graph = helper.make_graph(
        nodes,
        "embed",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, dimension])],
        [numpy_helper.from_array(weights, "w")],
    )
    return _bytes(graph)


def classifier_graph(*, size: int = 8, dimension: int = 4, seed: int = 0) -> bytes:
    """Return a graph with the inputs and outputs of a model bundle."""
    rng = np.random.Generator(np.random.PCG64(seed))
    trunk = rng.standard_normal((3 * size * size, dimension), dtype=np.float32)
    head = rng.standard_normal((dimension, len(CLASSES)), dtype=np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "trunk"], ["features"]),
        helper.make_node("LpNormalization", ["features"], ["embedding"], axis=1, p=2),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classify",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dimension]),
        ],
        [numpy_helper.from_array(trunk, "trunk"), numpy_helper.from_array(head, "head")],
    )
    return _bytes(graph)


def convolutions(size: int = 64) -> bytes:
    """Return a graph with what networks are made of: convolutions, a pool, a product."""
    rng = np.random.Generator(np.random.PCG64(1))
    shapes = {"a": (32, 3, 3, 3), "b": (64, 32, 3, 3), "c": (64, 64, 1, 1), "w": (64, 24)}
    held = {
        name: rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]) or 1)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("Conv", ["2", "b"], ["3"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["3"], ["4"]),
        helper.make_node("Conv", ["4", "c"], ["5"]),
        helper.make_node("GlobalAveragePool", ["5"], ["6"]),
        helper.make_node("Flatten", ["6"], ["7"], axis=1),
        helper.make_node("MatMul", ["7", "w"], ["8"]),
        helper.make_node("LpNormalization", ["8"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()],
    )
    return _bytes(graph)


def _bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def write_model(folder: Path, *, model_id: str = "m0000-aa", size: int = 8) -> ModelCard:
    """Write a bundle and return its card."""
    folder.mkdir(parents=True, exist_ok=True)
    data = classifier_graph(size=size)
    card = ModelCard(
        model_id=model_id,
        architecture="linear",
        classes=CLASSES,
        image_size=size,
        embedding_space=f"model_{model_id.replace('-', '_')}",
        embedding_dim=4,
        files={"model.onnx": hashlib.sha256(data).hexdigest()},
    )
    (folder / "model.onnx").write_bytes(data)
    (folder / "card.json").write_text(card.to_json())
    return card
