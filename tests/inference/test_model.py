from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.inference.graphs import CLASSES, embedding_graph, write_model
from tests.servers import storage_emulator
from visionloop.errors import InputError
from visionloop.inference import OnnxModel
from visionloop.lake.storage import open_storage


def images(n: int, size: int = 8) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).random((n, 3, size, size), dtype=np.float32)


def test_a_bundle_predicts_from_a_path_and_from_a_file_uri(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    model = OnnxModel.load(tmp_path / "m")
    probabilities, embedding = model.predict(images(5))
    assert probabilities.shape == (5, len(CLASSES)) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    again = OnnxModel.load(f"file://{tmp_path}/m/").predict(images(5))
    assert np.array_equal(again[0], probabilities)


def test_batches_answer_as_one_call_does(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = OnnxModel.load(tmp_path)
    whole, parts = model.predict(images(11)), model.predict(images(11), batch_size=4)
    assert np.allclose(whole[0], parts[0], atol=1e-6)
    assert np.allclose(whole[1], parts[1], atol=1e-6)
    assert [len(part) for part in model.predict(images(0))] == [0, 0]


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    data = bytearray((tmp_path / "model.onnx").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        OnnxModel.load(tmp_path)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"card\.json is missing"):
        OnnxModel.load(tmp_path / "nowhere")
    write_model(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx is missing"):
        OnnxModel.load(tmp_path)


def test_a_card_that_is_not_one_names_the_field(tmp_path: Path) -> None:
    write_model(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"image_size": "large"}))
    with pytest.raises(InputError, match="image_size"):
        OnnxModel.load(tmp_path)
    (tmp_path / "card.json").write_text("<html>")
    with pytest.raises(InputError, match="not a model card"):
        OnnxModel.load(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(card | {"format_version": 99}))
    with pytest.raises(InputError, match="format 99"):
        OnnxModel.load(tmp_path)


def test_a_card_that_vouches_for_nothing_is_refused(tmp_path: Path) -> None:
    card = write_model(tmp_path)
    (tmp_path / "card.json").write_text(card.model_copy(update={"files": {}}).to_json())
    with pytest.raises(InputError, match="vouches for no file"):
        OnnxModel.load(tmp_path)


def test_a_graph_that_is_no_bundle_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    card = write_model(tmp_path)
    with pytest.raises(InputError, match="'pixels'"):
        OnnxModel(embedding_graph(), card, uri="there")
    with pytest.raises(InputError, match="cannot load the model"):
        OnnxModel(b"GIF89a", card, uri="there")


def test_images_of_another_size_or_type_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = OnnxModel.load(tmp_path)
    with pytest.raises(InputError, match="float32"):
        model.predict(images(1, size=9))
    with pytest.raises(InputError, match="uint8"):
        model.predict(np.zeros((1, 3, 8, 8), dtype=np.uint8))  # type: ignore[arg-type]


def test_a_bundle_in_a_bucket_is_loaded_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m")
    with storage_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p",
            b'{"name": "models"}',
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request).read()
        open_storage("gs://models").upload(tmp_path / "m", "gs://models/one")
        model = OnnxModel.load("gs://models/one")
        assert np.array_equal(
            model.predict(images(3))[0], OnnxModel.load(tmp_path / "m").predict(images(3))[0]
        )
        with pytest.raises(InputError, match=r"card\.json is missing"):
            OnnxModel.load("gs://models/two")


def test_a_prediction_that_is_alone_answers_as_others_do(tmp_path: Path) -> None:
    from tests.serving.conftest import SIZE, write_bundle

    model = OnnxModel.load(write_bundle(tmp_path / "m", "m"), threads=1, threads_alone=2)
    images = np.random.default_rng(0).random((3, 3, SIZE, SIZE), np.float32)
    for one, other in zip(model.predict(images), model.predict(images, alone=True), strict=True):
        assert np.allclose(one, other, atol=1e-6)
    assert model.provider == "CPUExecutionProvider"
