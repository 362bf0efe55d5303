"""What computes embeddings and predictions, and that it gives what ONNX Runtime gives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.inference.graphs import CLASSES, convolutions, embedding_graph, write_model
from visionloop.config import InferenceConfig
from visionloop.errors import InputError, VisionloopError
from visionloop.inference import OnnxModel, network, openvino_graph, to_input
from visionloop.inference.classifier import Classifier
from visionloop.inference.embedder import OnnxEmbedder
from visionloop.inference.embedding import embed_and_predict
from visionloop.inference.network import Choice, choose
from visionloop.inference.openvino_graph import OpenVinoGraph
from visionloop.inference.pending import Models, Pending
from visionloop.inference.preprocessing import scaled
from visionloop.inference.session import device
from visionloop.media.decode import decode_stored, upright
from visionloop.progress import progress

needs_openvino = pytest.mark.skipif(
    not openvino_graph.installed() or device() != "CPU",
    reason="OpenVINO is not installed, or there is a GPU",
)
EXACT = InferenceConfig(runtime="onnxruntime")


def embedder(config: InferenceConfig, graph: bytes) -> OnnxEmbedder:
    return OnnxEmbedder(graph, where="w.onnx", image_size=0, source="s", inference=config)


def pictures(shared: Path, each: int = 24) -> list[Image.Image]:
    """Return real photographs of both kinds, upright."""
    found = []
    for kind in ("clothing", "bccd"):
        paths = sorted((shared / "data" / kind).rglob("*.jpg"))
        for path in paths[:: len(paths) // each][:each]:
            decoded = decode_stored(path.read_bytes())
            found.append(upright(decoded.image, decoded.exif))
    return found


def noise(n: int, size: int = 64) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(2))
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_runtime_and_precision_gives_the_vectors_of_real_photographs(
    shared: Path, precision: Any
) -> None:
    if precision == "bfloat16" and not openvino_graph.computes_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    graph = convolutions()
    exact = embedder(EXACT, graph)
    fast = embedder(InferenceConfig(runtime="openvino", precision=precision), graph)
    inputs = np.stack([exact.prepare(picture) for picture in pictures(shared)])
    expected, found = exact.embed(inputs), fast.embed(inputs)
    assert f"in {precision}" in fast.ran_on and "ONNX Runtime" in exact.ran_on
    assert fast.space == exact.space
    assert (expected * found).sum(axis=1).min() > 0.9999
    # Also of what distinguishes a picture from the others, which is little of a random network's.
    a, b = expected - expected.mean(axis=0), found - expected.mean(axis=0)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.98
    if precision == "bfloat16":
        assert not np.allclose(expected, found, atol=1e-6), "it was computed in float32"


@needs_openvino
def test_a_vector_does_not_depend_on_what_is_embedded_beside_it() -> None:
    one = embedder(InferenceConfig(), convolutions())
    inputs = noise(70)
    whole = one.embed(inputs)
    for start, end in ((0, 1), (3, 40), (69, 70)):
        assert np.array_equal(one.embed(inputs[start:end]), whole[start:end])


@needs_openvino
def test_a_graph_with_a_fixed_batch_embeds_any_number_as_onnx_runtime_does() -> None:
    graph = embedding_graph(batch=4)
    inputs = noise(7, 8)
    for n in (1, 4, 7):
        found = embedder(InferenceConfig(precision="float32"), graph).embed(inputs[:n])
        assert np.allclose(found, embedder(EXACT, graph).embed(inputs[:n]), atol=1e-5)


def on(
    monkeypatch: pytest.MonkeyPatch, *, there: str = "2026.4", bf16: bool = True, gpu: bool = False
) -> None:
    monkeypatch.setattr(openvino_graph, "installed", lambda: there)
    monkeypatch.setattr(openvino_graph, "computes_bfloat16", lambda: bf16)
    monkeypatch.setattr(network, "device", lambda: "CUDA" if gpu else "CPU")
    monkeypatch.setattr(network, "machine", lambda: "x86_64")


def test_the_choice_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = InferenceConfig()
    on(monkeypatch)
    assert choose(auto) == Choice("openvino", "bfloat16")
    assert choose(InferenceConfig(precision="float32")) == Choice("openvino", "float32")
    assert choose(EXACT) == Choice("onnxruntime", "float32")
    on(monkeypatch, bf16=False)
    assert choose(auto) == Choice("openvino", "float32")
    on(monkeypatch, gpu=True)
    assert choose(auto) == Choice("onnxruntime", "float32")
    on(monkeypatch, there="")
    found = choose(auto)
    assert (found.runtime, found.precision) == ("onnxruntime", "float32")
    assert "OpenVINO" in found.lacking and "not installed" in found.lacking


def test_what_this_machine_cannot_do_is_refused_by_the_fields_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, there="")
    with pytest.raises(InputError, match="not installed") as caught:
        choose(InferenceConfig(runtime="openvino"))
    assert caught.value.where == "inference.runtime" and "pip install" in caught.value.remedy
    with pytest.raises(InputError, match="does not compute in bfloat16") as caught:
        choose(InferenceConfig(precision="bfloat16"))
    assert caught.value.where == "inference.precision"
    on(monkeypatch, bf16=False)
    with pytest.raises(InputError, match="processor does not compute in bfloat16"):
        choose(InferenceConfig(runtime="openvino", precision="bfloat16"))


def test_without_openvino_it_is_said_what_would_be_faster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(monkeypatch, there="")
    one = embedder(InferenceConfig(), embedding_graph())
    one.embed(noise(3, 8))
    assert "OpenVINO" in capsys.readouterr().err
    assert one.ran_on.startswith("ONNX Runtime") and one.parallel == 1


def test_a_pods_limit_counts_and_not_its_nodes_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(openvino_graph, "_LIMIT", str(limit))
    for text, cores in (("400000 100000", 4), ("max 100000", 64), ("50000 100000", 1), ("", 64)):
        limit.write_text(text)
        assert openvino_graph.processors() == cores
    limit.unlink()
    assert (openvino_graph.processors(), openvino_graph.streams()) == (64, 8)


class Drifting(OpenVinoGraph):
    """A runtime that is wrong in some precisions."""

    wrong: tuple[str, ...] = ()

    def __init__(self, onnx: bytes, **options: Any) -> None:
        super().__init__(onnx, **options)
        self.drifts = options["precision"] in self.wrong

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        found = super().run(pixels)
        return [values + 0.1 * np.abs(values).max() for values in found] if self.drifts else found


@needs_openvino
def test_what_differs_from_float32_is_not_used_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "OpenVinoGraph", Drifting)
    monkeypatch.setattr(openvino_graph, "computes_bfloat16", lambda: True)
    inputs = noise(5, 8)
    expected = embedder(EXACT, embedding_graph()).embed(inputs)
    for wrong, used in ((("bfloat16",), "OpenVINO"), (("bfloat16", "float32"), "ONNX Runtime")):
        monkeypatch.setattr(Drifting, "wrong", wrong)
        one = embedder(InferenceConfig(), embedding_graph())
        assert np.allclose(one.embed(inputs), expected, atol=1e-4)
        assert one.ran_on.startswith(used) and "float32" in one.ran_on
        assert capsys.readouterr().err.count("a vector's cosine to that of float32 is") == len(
            wrong
        )
    with pytest.raises(VisionloopError, match="cannot be used: a vector's cosine") as caught:
        embedder(InferenceConfig(runtime="openvino"), embedding_graph()).embed(inputs)
    assert caught.value.where == "w.onnx"


@needs_openvino
def test_a_network_that_openvino_does_not_take_runs_on_onnx_runtime_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no such operation: Odd-1")

    monkeypatch.setattr(network, "OpenVinoGraph", refuse)
    one = embedder(InferenceConfig(), embedding_graph())
    assert one.embed(noise(3, 8)).shape == (3, 5)
    assert one.ran_on.startswith("ONNX Runtime")
    assert "no such operation: Odd-1" in capsys.readouterr().err


@needs_openvino
def test_a_models_probabilities_are_those_of_float32_and_as_fine(tmp_path: Path) -> None:
    write_model(tmp_path, size=8)
    model = OnnxModel.load(tmp_path)
    fast = Classifier(model, InferenceConfig())
    pixels = noise(200, 8)
    expected, vectors = model.predict(scaled(pixels))
    found, own = fast.predict(pixels)
    assert "OpenVINO" in fast.ran_on and found.shape == (200, len(CLASSES))
    assert np.abs(found - expected).max() < network.MOST_DIFFERENCE
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-4
    assert (own * vectors).sum(axis=1).min() > network.LEAST_COSINE
    # Scores of three digits would tie, and ties are picked by id.
    assert len(np.unique(found.max(axis=1))) > 190


def test_what_counts_as_agreement() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    told = network.disagreement
    assert told("embedding", vectors * 2, vectors) == ""
    assert "0.6000" in told("embedding", np.array([[5, 0], [0, 0]], np.float32), vectors)
    assert "0.0000" in told("embedding", np.array([[3, 4], [0, 1]], np.float32), vectors)
    assert "finite" in told("embedding", vectors * np.nan, vectors)
    assert "[1, 2]" in told("embedding", vectors[:1], vectors)
    probabilities = np.array([[0.5, 0.5]], np.float32)
    assert told("probabilities", probabilities + 0.019, probabilities) == ""
    assert "0.021" in told("probabilities", probabilities + 0.021, probabilities)


def test_many_batches_at_once_leave_each_sample_its_own_vector(tmp_path: Path) -> None:
    write_model(tmp_path / "model", size=8)
    one = embedder(InferenceConfig(), embedding_graph())
    models = Models(one, Classifier(OnnxModel.load(tmp_path / "model"), InferenceConfig()))
    media, images = {}, {}
    for i, pixels in enumerate(noise(200, 8)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        media[name], images[name] = f"file://{path}", pixels
    gone = min(media)
    Path(media[gone].removeprefix("file://")).unlink()
    some = set(sorted(media)[:150])
    pending = Pending(set(media), some, set(media))
    with progress("infer", total=len(media), unit="images") as bar:
        rows = embed_and_predict(media, pending, models, bar).to_pylist()
    assert [row["sample_id"] for row in rows] == sorted(media)
    assert rows[0]["reason"] == "missing" and rows[0]["vector"] is None
    expected = embedder(EXACT, embedding_graph()).embed(np.stack([*images.values()]))
    by_name = dict(zip(images, expected, strict=True))
    for row in rows[1:]:
        vector = np.frombuffer(row["vector"], "<f4")
        assert float(vector @ by_name[row["sample_id"]]) > 0.999
        assert (row["probabilities"] is not None) == (row["sample_id"] in some)
        assert len(row["model_vector"]) == 16


def test_a_large_photograph_decoded_at_a_reduced_scale_gives_the_same_vector(
    shared: Path,
) -> None:
    one = embedder(EXACT, convolutions())
    for picture in pictures(shared, 3):
        large = picture.convert("RGB").resize((picture.width * 4, picture.height * 4))
        import io

        data = io.BytesIO()
        large.save(data, "JPEG", quality=92)
        whole = decode_stored(data.getvalue()).image
        reduced = decode_stored(data.getvalue(), draft=one.side).image
        assert reduced.width * 2 <= whole.width
        a, b = one.embed(np.stack([one.prepare(whole), one.prepare(reduced)]))
        assert float(a @ b) > 0.9999


def test_pixels_scaled_in_a_batch_are_those_of_one_image() -> None:
    pixels = noise(3, 16)
    assert np.array_equal(scaled(pixels), np.stack([to_input(image, 16) for image in pixels]))
