"""The doctor finds what is wrong with this machine and a lake, and names the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionloop.cli import checks, main
from visionloop.inference import network, openvino_graph, session


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    main(["doctor", "--json", *arguments])
    return {f["check"]: f for f in json.loads(capsys.readouterr().out)["findings"]}


def test_this_machine_passes_and_every_line_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("✓ Python: 3.") for line in lines)
    assert lines[-1].endswith("with a warning")
    assert list(tmp_path.iterdir()) == []


def test_a_cpu_torch_beside_another_torchvision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.15.0+cpu", "torchvision": "0.29.2"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions.get(name, "1"))
    found = next(f for f in checks.machine(Path.cwd()) if f.check == "torch build")
    assert found.state == "fail" and "same index" in found.remedy


def onnx_runtime() -> checks.Finding:
    return next(f for f in checks.machine(Path.cwd()) if f.check == "ONNX Runtime")


def test_what_onnx_models_run_on_is_told_and_a_gpu_that_is_left_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_NVIDIA", str(tmp_path / "nvidiactl"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = onnx_runtime()
    assert found.state == "ok" and found.found.endswith("models run on the CPU")
    # A driver's device, and nothing behind it.
    (tmp_path / "nvidiactl").touch()
    found = onnx_runtime()
    if "onnxruntime-gpu" in found.found:
        assert found.state == "fail" and "Failed to load" in found.found
    else:
        assert found.state == "warn" and "cannot use it" in found.found
        assert "visionloop[gpu]" in found.remedy


def test_what_infer_would_run_networks_with_is_told_and_what_would_be_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> checks.Finding:
        return next(f for f in checks.machine(Path.cwd()) if f.check == "networks of infer")

    monkeypatch.setattr(network, "device", lambda: "CPU")
    monkeypatch.setattr(network, "machine", lambda: "x86_64")
    monkeypatch.setattr(openvino_graph, "installed", lambda: "2026.4.1")
    for capable, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(openvino_graph, "computes_bfloat16", lambda value=capable: value)
        found = told()
        assert (found.state, found.found) == ("ok", f"OpenVINO 2026.4.1 in {precision} on the CPU")
    monkeypatch.setattr(openvino_graph, "installed", lambda: "")
    found = told()
    assert found.state == "warn" and "OpenVINO" in found.found
    assert found.found.startswith("ONNX Runtime") and "visionloop[lake]" in found.remedy


def test_two_builds_of_onnx_runtime_over_each_other_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        about = tmp_path / f"{name}-1.31.1.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n"
        about.joinpath("METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = onnx_runtime()
    assert found.state == "fail" and "over each other" in found.found
    assert found.remedy.startswith("pip uninstall")


def test_a_lake_that_does_not_exist_is_told_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = findings(capsys, "--lake", str(tmp_path / "lakee"))[f"lake {tmp_path / 'lakee'}"]
    assert found["state"] == "warn" and "does not exist" in found["found"]
    assert not (tmp_path / "lakee").exists()


def test_what_is_not_installed_here_cannot_be_looked_at_and_is_no_failure() -> None:
    def look() -> str:
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

    found = checks.attempt("lake", look)
    assert found.state == "warn" and "pyarrow is not installed" in found.found
    assert "pip install" in found.remedy


def test_a_lake_its_sources_and_its_endpoint_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"png")
    config = tmp_path / "loop.yaml"
    config.write_text(
        "lake: lake\nsources: [{uri: photos}, {uri: nowhere}]\n"
        "serving: {url: 'http://127.0.0.1:9'}\n",
        encoding="utf-8",
    )
    found = findings(capsys, "--config", str(config))
    assert found[f"lake {tmp_path / 'lake'}"]["found"] == "empty"
    assert found["write to the lake"]["state"] == "ok"
    assert found[f"source {tmp_path / 'photos'}"]["state"] == "ok"
    assert found[f"source {tmp_path / 'nowhere'}"]["state"] != "ok"
    assert found["endpoint http://127.0.0.1:9"]["state"] == "warn"
    assert "visionloop serve" in found["endpoint http://127.0.0.1:9"]["remedy"]
