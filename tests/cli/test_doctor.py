"""The doctor finds what is wrong and names the remedy; the cluster's API is a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.submission.kfp_stub import KfpStub
from visionloop.cli import checks, main

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferenceservices.serving.kserve.io"
CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"


def controller(version: str) -> dict[str, Any]:
    containers = [{"name": "manager", "image": f"docker.io/kserve/kserve-controller:{version}"}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def node(gpus: int) -> dict[str, Any]:
    allocatable = {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"status": {"allocatable": allocatable}}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A Kubernetes API that answers with what the test puts into this dictionary."""
    answers: dict[str, Any] = {"/version": {"gitVersion": "v1.36.0"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            status = 404 if found is None else found if isinstance(found, int) else 200
            data = json.dumps(found if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config), encoding="utf-8")
    # kubernetes reads this variable when it is imported, which another test may have done before.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield answers
    server.shutdown()
    server.server_close()


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


def test_a_lake_that_does_not_exist_is_told_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = findings(capsys, "--lake", str(tmp_path / "lakee"))[f"lake {tmp_path / 'lakee'}"]
    assert found["state"] == "warn" and "does not exist" in found["found"]
    assert not (tmp_path / "lakee").exists()


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


def test_a_whole_cluster_is_found(
    cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster[CRD] = {}
    cluster[CONTROLLER] = controller("v0.21.0")
    cluster["/api/v1/nodes"] = {"items": [node(0), node(2), node(1)]}
    with KfpStub(single_user=False) as stub:
        found = findings(capsys, "--cluster", "--host", stub.url)
    assert found["Kubernetes"]["found"] == "version v1.36.0"
    assert found["KServe"] == {
        "check": "KServe", "state": "ok", "found": "version v0.21.0", "remedy": ""
    }  # fmt: skip
    assert found["GPU nodes"]["found"] == "3 of nvidia.com/gpu"
    assert found["Kubeflow Pipelines"]["found"] == "answers, for many users"


def test_what_a_cluster_lacks_is_a_warning_with_a_remedy(
    cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster["/api/v1/nodes"] = {"items": [node(0)]}
    with KfpStub() as stub:
        found = findings(capsys, "--cluster", "--host", stub.url)
    for check in ("KServe", "GPU nodes"):
        assert found[check]["state"] == "warn" and found[check]["remedy"]


def test_an_old_kserve_is_a_warning(
    cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster[CRD] = {}
    cluster[CONTROLLER] = controller("v0.11.2@sha256:abc")
    cluster["/api/v1/nodes"] = {"items": []}
    with KfpStub() as stub:
        found = findings(capsys, "--cluster", "--host", stub.url)
    assert found["KServe"]["state"] == "warn" and "v0.11.2" in found["KServe"]["found"]


def test_missing_rights_are_a_failure_that_says_so(
    cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster[CRD] = 403
    cluster["/api/v1/nodes"] = 403
    with KfpStub() as stub:
        found = findings(capsys, "--cluster", "--host", stub.url)
    assert "403" in found["KServe"]["found"] and "right" in found["KServe"]["remedy"]


def test_no_cluster_at_all_fails_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert main(["doctor", "--cluster", "--host", "http://127.0.0.1:9"]) == 1
    text = capsys.readouterr().out
    assert "✗ Kubernetes: No cluster is configured" in text and "KUBECONFIG" in text
    assert "✗ Kubeflow Pipelines" in text and "port-forward" in text
