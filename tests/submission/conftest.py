"""What the tests of submission share: a compiled pipeline, and a home without sign-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.config import kube_config

from visionloop.submission import Work, prepare

LOOP = (
    "name: digits\nlake: gs://bucket/lake\ncatalog: http://catalog.example\n"
    "selection: {n_samples: 40}\n"
)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Return a compiled round; compiling takes a second."""
    return prepare("round", LOOP, tmp_path_factory.mktemp("round"))


@pytest.fixture(scope="session")
def shared_work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Return a round whose configuration names its namespace on a server that many share."""
    config = LOOP + "cluster: {namespace: team-a}\n"
    return prepare("round", config, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Return a round of another content."""
    settings = ("n_samples=41",)
    return prepare("round", LOOP, tmp_path_factory.mktemp("changed"), settings=settings)


@pytest.fixture(autouse=True)
def _signed_in_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no token, cookie or cluster of this machine reach a test."""
    for name in (
        "VISIONLOOP_KFP_TOKEN",
        "VISIONLOOP_KFP_TOKEN_FILE",
        "VISIONLOOP_KFP_COOKIE",
        "VISIONLOOP_KFP_CA_FILE",
        "KF_PIPELINES_ENDPOINT",
        "KF_PIPELINES_UI_ENDPOINT",
        "KF_PIPELINES_SA_TOKEN_PATH",
        "KUBERNETES_SERVICE_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    # kubernetes reads that variable when it is imported, which another test may have done before.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
