from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from visionloop.errors import InputError, VisionloopError
from visionloop.inference import ModelCard, OnnxModel, to_batch
from visionloop.training.bundle import probe_images, write_bundle
from visionloop.training.parameters import TrainingConfig
from visionloop.training.trainer import train_network

QUICK = TrainingConfig(min_updates=8, epochs=1)


def digits() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8).repeat(3, axis=3)
    inputs = np.rint(to_batch(list(images), 32) * 255).astype(np.uint8)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    return inputs[order], labels[order].astype(np.int64)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return digits()


def card(parameters: TrainingConfig, n_classes: int, dimension: int) -> ModelCard:
    return ModelCard(
        model_id="m0000-aa",
        architecture=parameters.architecture,
        classes=[str(i) for i in range(n_classes)],
        image_size=parameters.image_size,
        embedding_space="model_m0000_aa",
        embedding_dim=dimension,
    )


def test_fifty_labels_beat_logistic_regression_and_are_calibrated(
    data: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    images, labels = data
    trained = train_network(images[:50], labels[:50], n_classes=10, parameters=TrainingConfig())
    write_bundle(
        tmp_path, trained.network, card(TrainingConfig(), 10, 256), temperature=trained.temperature
    )
    probabilities, embedding = OnnxModel.load(tmp_path).predict(
        images[1200:].astype(np.float32) / 255
    )
    right = probabilities.argmax(axis=1) == labels[1200:]
    # Logistic regression on pixels: .818 with 50 random labels.
    assert right.mean() > 0.88
    assert abs(float(probabilities.max(axis=1).mean() - right.mean())) < 0.1
    assert trained.temperature != 1.0 and trained.held_out > 0
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-4)


def test_the_same_training_set_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from visionloop.inference import ModelCard
from visionloop.training.bundle import write_bundle
from visionloop.training.parameters import TrainingConfig
from visionloop.training.trainer import train_network
rng = np.random.Generator(np.random.PCG64(0))
images = rng.integers(0, 256, (60, 3, 16, 16), dtype=np.uint8)
parameters = TrainingConfig(image_size=16, min_updates=20, epochs=1)
trained = train_network(images, np.arange(60) % 3, n_classes=3, parameters=parameters)
card = ModelCard(model_id="m", architecture="small_cnn", classes=["a", "b", "c"], image_size=16,
                 embedding_space="model_m", embedding_dim=128)
print(write_bundle(sys.argv[1], trained.network, card, temperature=trained.temperature).files)
slow = {"torch._dynamo", "torch._inductor", "torchvision", "sklearn"} & set(sys.modules)
assert not slow, f"imported for nothing: {slow}"
"""
    printed = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("one", "two")
    ]
    assert printed[0] == printed[1]
    assert "model.onnx" in printed[0] and "state.pt" in printed[0]


def test_another_seed_gives_another_model(data: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    images, labels = data
    weights = []
    for seed in (0, 0, 1):
        parameters = QUICK.model_copy(update={"seed": seed})
        trained = train_network(images[:20], labels[:20], n_classes=10, parameters=parameters)
        buffer = io.BytesIO()
        torch.save(trained.network.state_dict(), buffer)
        weights.append(buffer.getvalue())
    assert weights[0] == weights[1] != weights[2]


def test_training_leaves_pytorchs_own_state_alone(data: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    train_network(data[0][:8], data[1][:8], n_classes=10, parameters=QUICK)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert torch.get_deterministic_debug_mode() == 0


def test_the_smallest_sets_train_and_absent_classes_have_a_column(tmp_path: Path) -> None:
    images = probe_images(16)
    parameters = QUICK.model_copy(update={"image_size": 16})
    for n in (2, 3, 5):
        trained = train_network(
            np.rint(images[:n] * 255).astype(np.uint8),
            np.zeros(n, dtype=np.int64),
            n_classes=4,
            parameters=parameters,
        )
        written = write_bundle(
            tmp_path / str(n), trained.network, card(parameters, 4, 128), temperature=1.0
        )
        assert OnnxModel.load(tmp_path / str(n)).predict(images)[0].shape == (8, 4)
        assert written.opset == 18


def test_one_label_is_too_few() -> None:
    with pytest.raises(InputError, match="too few"):
        train_network(
            np.zeros((1, 3, 32, 32), np.uint8), np.zeros(1, np.int64), n_classes=2, parameters=QUICK
        )


def test_a_loss_that_is_not_finite_stops_the_training(data: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    from visionloop.training.network import build_network

    state = build_network("small_cnn", n_classes=10, image_size=32).state_dict()
    state["trunk.0.weight"][:] = float("nan")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    parameters = QUICK.model_copy(update={"weights": "broken.pt"})
    with pytest.raises(VisionloopError, match="the loss became nan at step 1") as caught:
        train_network(
            data[0][:8],
            data[1][:8],
            n_classes=10,
            parameters=parameters,
            weights=buffer.getvalue(),
        )
    assert not isinstance(caught.value, InputError)


def test_a_run_that_starts_from_weights_begins_with_them(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    import torch

    images, labels = data
    first = train_network(images[:40], labels[:40], n_classes=10, parameters=QUICK)
    buffer = io.BytesIO()
    torch.save(first.network.state_dict(), buffer)
    still = QUICK.model_copy(
        update={"weights": "first.pt", "learning_rate": 1e-9, "min_updates": 1}
    )
    second = train_network(
        images[:8], labels[:8], n_classes=3 + 7, parameters=still, weights=buffer.getvalue()
    )
    one, two = (t.network.state_dict()["trunk.0.weight"] for t in (first, second))
    assert torch.allclose(one, two, atol=1e-6)


def test_a_torchvision_network_trains_and_exports(tmp_path: Path) -> None:
    parameters = TrainingConfig(
        architecture="mobilenet_v3_small", image_size=32, min_updates=2, epochs=1, batch_size=4
    )
    images = np.rint(probe_images(32) * 255).astype(np.uint8)
    trained = train_network(images, np.arange(8) % 2, n_classes=2, parameters=parameters)
    write_bundle(tmp_path, trained.network, card(parameters, 2, 1024), temperature=1.0)
    reference = np.load(tmp_path / "reference.npz")
    probabilities, embedding = OnnxModel.load(tmp_path).predict(reference["image"])
    assert np.abs(probabilities - reference["probabilities"]).max() < 1e-4
    assert np.abs(embedding - reference["embedding"]).max() < 1e-4


@pytest.mark.parametrize(
    ("architecture", "said"),
    [("resnet81", r"did you mean `resnet18`"), ("squeezenet1_0", "linear layer")],
)
def test_an_architecture_that_cannot_be_trained_is_refused(architecture: str, said: str) -> None:
    parameters = QUICK.model_copy(update={"architecture": architecture})
    with pytest.raises(InputError, match=said):
        train_network(
            np.zeros((4, 3, 32, 32), np.uint8),
            np.zeros(4, np.int64),
            n_classes=2,
            parameters=parameters,
        )
