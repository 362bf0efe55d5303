"""A pod speaks to its own cluster over TLS, with a token that rotates under it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.cluster.api_server import ApiServer
from visionloop.cluster import connect, connecting
from visionloop.cluster.transport import Patience
from visionloop.errors import VisionloopError


@pytest.fixture
def account(tmp_path: Path, api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pod's service account; the API server speaks TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    certificate, key = folder / "ca.crt", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "1", "-subj", "/CN=kubernetes", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    api_server.speak_tls(context)
    (folder / "token").write_text("first", encoding="utf-8")
    (folder / "namespace").write_text("team-a\n", encoding="utf-8")
    from kubernetes.config import incluster_config

    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    monkeypatch.setattr(connecting, "_POD_NAMESPACE", folder / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", api_server.url.rpartition(":")[2])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return folder


def test_a_pod_takes_its_own_account_and_namespace(api_server: ApiServer, account: Path) -> None:
    api_server.tokens = {"first"}
    cluster = connect()
    assert cluster.namespace == "team-a"
    assert (
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
        )["metadata"]["namespace"]
        == "team-a"
    )


def test_a_token_that_rotates_under_a_watch_is_read_again(
    api_server: ApiServer, account: Path
) -> None:
    api_server.tokens = {"first"}
    cluster = connect(patience=Patience(first_s=0.02))
    api_server.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "team-a"}}
    )
    api_server.cut_watch("/configmaps$", after=1)
    seen = 0
    for item in cluster.watch("v1", "ConfigMap", "a", timeout_s=10):
        seen += 1
        assert item is not None
        if seen == 3:
            break
        api_server.tokens = {"second"}
        (account / "token").write_text("second", encoding="utf-8")
        item["data"] = {"seen": str(seen)}
        api_server.put(item)
    assert seen == 3
    assert [request.token for request in api_server.requests][-2:] == ["first", "second"]


def test_a_certificate_of_another_authority_is_refused(
    api_server: ApiServer, account: Path, tmp_path: Path
) -> None:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "1", "-subj", "/CN=another", "-keyout", str(tmp_path / "k"),
            "-out", str(account / "ca.crt"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    with pytest.raises(VisionloopError, match="certificate is not trusted"):
        connect(patience=Patience(first_s=60)).get("v1", "ConfigMap", "a")
    assert api_server.requests == []


def test_a_pod_that_was_given_another_cluster_takes_that(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer() as other:
        path = other.kubeconfig(tmp_path / "config", namespace="elsewhere")
        monkeypatch.setenv("KUBECONFIG", str(path))
        cluster = connect()
        assert cluster.namespace == "elsewhere" and cluster.server_version() == "v1.36.0"
        assert other.requests
