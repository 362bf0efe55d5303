from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.graphs import embedding_graph
from visionloop.config import EmbeddingConfig, InferenceConfig
from visionloop.errors import InputError
from visionloop.inference.embedder import OnnxEmbedder, open_embedder
from visionloop.inference.preprocessing import scaled
from visionloop.lake import Lake


def opened(graph: bytes) -> OnnxEmbedder:
    exact = InferenceConfig(runtime="onnxruntime")
    return OnnxEmbedder(graph, where="w", image_size=0, source="s", inference=exact)


def media(folder: Path, n: int = 12) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    found = {}
    rng = np.random.Generator(np.random.PCG64(0))
    for i in range(n):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(data, "PNG")
        (folder / f"{i}.png").write_bytes(data.getvalue())
        found[hashlib.sha256(data.getvalue()).hexdigest()] = f"file://{folder}/{i}.png"
    return found


def test_without_weights_the_descriptor_is_fitted_once_and_frozen(
    lake: Lake, tmp_path: Path
) -> None:
    first = open_embedder(EmbeddingConfig(), InferenceConfig(), lake, media(tmp_path / "a"))
    assert first.space.startswith("pixels_")
    assert "no weights were named" in first.source
    later = open_embedder(EmbeddingConfig(), InferenceConfig(), lake, media(tmp_path / "a", n=30))
    assert later.space == first.space
    image = np.random.Generator(np.random.PCG64(9)).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    vectors = [e.embed(e.prepare(Image.fromarray(image))[None]) for e in (first, later)]
    assert np.array_equal(*vectors)


def test_another_number_of_dimensions_is_another_space(lake: Lake, tmp_path: Path) -> None:
    pictures = media(tmp_path / "a")
    one = open_embedder(EmbeddingConfig(dimensions=16), InferenceConfig(), lake, pictures)
    two = open_embedder(EmbeddingConfig(dimensions=8), InferenceConfig(), lake, pictures)
    assert one.space != two.space
    assert (one.dimensions, two.dimensions) == (16, 8)


def test_an_onnx_file_is_used_as_it_is(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(embedding_graph(size=8))
    embedder = open_embedder(EmbeddingConfig(weights=str(path)), InferenceConfig(), lake, {})
    image = np.random.Generator(np.random.PCG64(9)).integers(0, 256, (20, 9, 3), dtype=np.uint8)
    vectors = embedder.embed(np.stack([embedder.prepare(Image.fromarray(image))] * 3))
    assert vectors.shape == (3, 5) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert "net.onnx" in embedder.source


def test_other_weights_are_another_space(lake: Lake, tmp_path: Path) -> None:
    spaces = set()
    for seed in (0, 1):
        path = tmp_path / "net.onnx"
        path.write_bytes(embedding_graph(seed=seed))
        spaces.add(
            open_embedder(EmbeddingConfig(weights=str(path)), InferenceConfig(), lake, {}).space
        )
    assert len(spaces) == 2


def test_a_graph_with_a_fixed_batch_embeds_any_number() -> None:
    def embed(batch: int | str, n: int) -> np.ndarray:
        embedder = opened(embedding_graph(batch=batch))
        rng = np.random.Generator(np.random.PCG64(0))
        return embedder.embed(rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)[:n])

    for n in (1, 4, 7):
        assert np.allclose(embed(4, n), embed("n", n), atol=1e-6)


def test_a_state_dict_is_exported_once_and_then_needs_no_pytorch_file(
    lake: Lake, tmp_path: Path
) -> None:
    import torch

    from visionloop.training.network import build_network

    torch.manual_seed(3)
    network = build_network("small_cnn", n_classes=4, image_size=32).eval()
    path = tmp_path / "state.pt"
    torch.save(network.state_dict(), path)
    config = EmbeddingConfig(weights=str(path), architecture="small_cnn", image_size=32)
    embedder = open_embedder(config, InferenceConfig(runtime="onnxruntime"), lake, {})
    x = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(scaled(x)))[1].numpy()
    assert np.allclose(embedder.embed(x), expected, atol=1e-5)
    exported = list(lake.storage.list(lake.path("weights")))
    again = open_embedder(config, InferenceConfig(runtime="onnxruntime"), lake, {})
    assert again.space == embedder.space
    assert list(lake.storage.list(lake.path("weights"))) == exported


def _missing(folder: Path) -> EmbeddingConfig:
    return EmbeddingConfig(weights=str(folder / "nothing.onnx"))


def _unknown_kind(folder: Path) -> EmbeddingConfig:
    (folder / "net.h5").write_bytes(b"x")
    return EmbeddingConfig(weights=str(folder / "net.h5"))


def _not_onnx(folder: Path) -> EmbeddingConfig:
    (folder / "net.onnx").write_bytes(b"not a graph")
    return EmbeddingConfig(weights=str(folder / "net.onnx"))


def _not_a_state_dict(folder: Path) -> EmbeddingConfig:
    (folder / "net.pt").write_bytes(b"not a state dict")
    return EmbeddingConfig(weights=str(folder / "net.pt"), architecture="small_cnn")


def _other_architecture(folder: Path) -> EmbeddingConfig:
    import torch

    torch.save({"layer.weight": torch.zeros(3)}, folder / "net.pt")
    return EmbeddingConfig(weights=str(folder / "net.pt"), architecture="small_cnn")


def _odd_size(folder: Path) -> EmbeddingConfig:
    return EmbeddingConfig(image_size=30)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_missing, "cannot be read"),
        (_unknown_kind, "'h5'"),
        (_not_onnx, "cannot load the model"),
        (_not_a_state_dict, "not a PyTorch state dict"),
        (_other_architecture, "tensors of the network are missing"),
        (_odd_size, "multiple of 16"),
    ],
)
def test_weights_that_cannot_be_used_stop_the_loop_and_say_why(
    lake: Lake, tmp_path: Path, make: Callable[[Path], EmbeddingConfig], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_embedder(make(tmp_path), InferenceConfig(), lake, media(tmp_path / "a", n=2))


def test_a_graph_that_does_not_give_vectors_is_refused() -> None:
    from onnx import TensorProto, helper

    def graph(outputs: list[str], node: str) -> bytes:
        shapes = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        made = helper.make_graph(
            [helper.make_node(node, ["x"], [name]) for name in outputs],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
            shapes,
        )
        opset = [helper.make_opsetid("", 18)]
        return bytes(
            helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString()
        )

    with pytest.raises(InputError, match="not one vector each"):
        opened(graph(["a"], "Relu"))
    with pytest.raises(InputError, match="none named `embedding`"):
        opened(graph(["a", "b"], "Relu"))
