"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api_server import ApiServer
from visionloop.lake import Lake
from visionloop.lake.credentials import has_google_credentials

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Keep numerical libraries from fighting over two cores, and let children be interrupted."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell starts its background jobs deaf to SIGINT, and their children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real photographs, CRDs and recorded events, where there is one."""
    folder = Path(os.environ.get("VISIONLOOP_TEST_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no recorded events and photographs at {folder} (VISIONLOOP_TEST_SHARED)")
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Return an empty lake on a local disk."""
    return Lake.open(str(tmp_path / "lake"), loop="test")


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    """Return a running Kubernetes API server without custom resources."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def kubeconfig(api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point KUBECONFIG at the API server and return the file."""
    path = api_server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def without_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nobody is signed in at Google, and which asks nobody there."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "VISIONLOOP_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("VISIONLOOP_GOOGLE_APIS", "http://127.0.0.1:9")
    has_google_credentials.cache_clear()
