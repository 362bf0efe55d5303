"""Where ONNX models run, and what is said where a GPU cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.inference.graphs import convolutions, embedding_graph
from visionloop.errors import InputError, VisionloopError
from visionloop.inference import session

CUDA = "CUDAExecutionProvider"
BUILT_WITH_CUDA = CUDA in onnxruntime.get_available_providers()


@pytest.fixture
def device_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a node's driver leaves in a container that was given a GPU, and nothing behind it."""
    file = tmp_path / "nvidiactl"
    file.touch()
    monkeypatch.setattr(session, "_NVIDIA", str(file))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    session._tell_once.cache_clear()
    return file


def run(started: onnxruntime.InferenceSession) -> np.ndarray:
    images = np.random.Generator(np.random.PCG64(0)).random((3, 3, 8, 8), dtype=np.float32)
    (vectors,) = session.run_session(started, ["out"], {"pixels": images}, where="w.onnx")
    return np.asarray(vectors)


def test_without_a_gpu_the_processor_serves_whichever_build_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "_NVIDIA", str(tmp_path / "nothing"))
    assert (session.device(), session.unused_gpu()) == ("CPU", "")
    started = session.start_session(embedding_graph(), where="w.onnx")
    assert started.get_providers() == ["CPUExecutionProvider"]
    assert run(started).shape == (3, 5)


def test_a_gpu_that_is_hidden_from_programs_is_not_used_and_not_missed(
    device_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert (session.device(), session.unused_gpu()) == ("CPU", "")


@pytest.mark.skipif(BUILT_WITH_CUDA, reason="this ONNX Runtime is built with CUDA")
def test_a_build_that_leaves_the_gpu_idle_says_so_once_and_works(
    device_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert session.device() == "CPU"
    assert "cannot use it" in session.unused_gpu()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert run(session.start_session(embedding_graph(), where="w.onnx")).shape == (3, 5)
    (record,) = caplog.records
    assert "there is a GPU" in record.message and "visionloop[gpu]" in record.message


def test_a_gpu_that_a_build_for_it_cannot_use_is_an_error_and_not_a_slow_run(
    device_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The build that is tested may have no CUDA: what it does when asked for it is its own.
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(session, "_DRIVER", "libcuda-of-no-driver.so.1")
    session.load_cuda.cache_clear()
    assert (session.device(), session.unused_gpu()) == ("CUDA", "")
    with pytest.raises(VisionloopError, match="ONNX Runtime cannot use it") as caught:
        session.start_session(embedding_graph(), where="weights.onnx")
    assert not isinstance(caught.value, InputError)
    assert "libcuda-of-no-driver.so.1" in caught.value.what
    assert caught.value.where == "weights.onnx" and "driver" in caught.value.remedy
    with pytest.raises((InputError, VisionloopError)) as broken:
        session.start_session(b"GIF89a", where="weights.onnx")
    assert isinstance(broken.value, InputError), "bytes that are no model are not the GPU's fault"
    session.load_cuda.cache_clear()


def test_of_what_cuda_says_the_reason_is_told() -> None:
    # As ONNX Runtime 1.31 words it beside a driver that is too old, shortened in its first half.
    said = (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:146 std::conditional_t<THRW,"
        " void, common::Status> = void] CUDA failure 35: CUDA driver version is insufficient for "
        "CUDA runtime version ; GPU=-1 ; hostname=node-7 ; file=/onnxruntime_src/onnxruntime/core/"
        "providers/cuda/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(id); \n\n"
    )
    assert session._why(RuntimeError(said)) == (
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
    )
    assert session._why(ValueError("first\nsecond")) == "first"


def test_the_smallest_model_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(session.SMALLEST))
    started = session.start_session(session.SMALLEST, where="here")
    assert started.run(None, {"x": np.array([4], np.float32)})[0].tolist() == [4]


def zeros_graph() -> bytes:
    """Return a graph that makes zeros of a shape that it is given."""
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["zeros"])],
        "zeros",
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["n", "m"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_gpu_without_memory_is_told_from_a_network_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = session.start_session(zeros_graph(), where="w.onnx")
    # The processor, which is here, stands for the GPU: its memory too does not suffice.
    monkeypatch.setattr(session, "_CUDA", started.get_providers()[0])
    shape = np.array([1 << 24, 1 << 24], dtype=np.int64)
    with pytest.raises(VisionloopError, match="the GPU failed") as caught:
        session.run_session(started, ["zeros"], {"shape": shape}, where="w.onnx")
    assert "more of it" in caught.value.remedy and caught.value.where == "w.onnx"
    monkeypatch.undo()
    with pytest.raises(Exception, match=r"memory|alloc") as on_processor:
        session.run_session(started, ["zeros"], {"shape": shape}, where="w.onnx")
    assert not isinstance(on_processor.value, VisionloopError)
    started = session.start_session(embedding_graph(), where="w.onnx")
    with pytest.raises(Exception, match="dimension") as other:
        session.run_session(
            started, ["out"], {"pixels": np.zeros((1, 3, 9, 9), np.float32)}, where="w.onnx"
        )
    assert not isinstance(other.value, VisionloopError)


@pytest.mark.gpu
@pytest.mark.skipif(session.device() != "CUDA", reason="no GPU here, or no ONNX Runtime for it")
def test_a_gpu_gives_the_vectors_of_a_processor_and_the_same_ones_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = convolutions()
    images = np.random.Generator(np.random.PCG64(2)).random((65, 3, 64, 64), dtype=np.float32)

    def embed(parts: int) -> np.ndarray:
        started = session.start_session(graph, where="w.onnx")
        return np.concatenate(
            [
                session.run_session(started, ["embedding"], {"image": part}, where="w.onnx")[0]
                for part in np.array_split(images, parts)
            ]
        )

    on_gpu, again, in_parts = embed(1), embed(1), embed(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    on_processor = embed(1)
    assert np.array_equal(on_gpu, again)
    # TF32 would be off by 1e-3; export takes 1e-4.
    assert np.abs(on_gpu - on_processor).max() < 1e-5
    assert np.abs(in_parts - on_processor).max() < 1e-5
