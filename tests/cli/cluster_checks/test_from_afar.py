"""A laptop's doctor says what it cannot tell of what only pods reach, and fails on none of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.cluster_checks.made import NAMESPACE, Findings, lake_claim, thing
from tests.cluster.api_server import ApiServer

UNTOLD = "cannot tell from here"


def test_what_lies_on_the_claim_cannot_be_told_from_a_laptop_and_is_looked_at_in_a_pod(
    server: ApiServer,
    doctor: Callable[..., Findings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put(lake_claim("ReadWriteMany"), namespace=NAMESPACE)
    source = f"{tmp_path}/photos"
    checks = (f"lake {tmp_path}/data", "write to the lake", f"source {source}")
    found = doctor(sources=[{"uri": source}])
    for check in checks:
        assert found[check]["state"] == "warn" and UNTOLD in found[check]["found"]
        assert "the volume lake, which pods mount" in found[check]["found"]
        assert "deployment/visionloop-client" in found[check]["remedy"]
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    found = doctor(sources=[{"uri": source}])
    assert [found[check]["state"] for check in checks[:2]] == ["ok", "ok"]
    assert found[checks[2]]["state"] == "fail"


def test_a_bucket_without_credentials_and_a_catalog_in_the_secret_cannot_be_told(
    server: ApiServer, doctor: Callable[..., Findings], without_google: None
) -> None:
    address = base64.b64encode(b"postgresql://u:p@visionloop-postgres/lake").decode()
    server.put(thing("Secret", "visionloop", data={"catalog": address}), namespace=NAMESPACE)
    sections = {"lake": "gs://b/lake", "sources": [{"uri": "gs://b/photos"}]}
    found = doctor(**sections)
    assert "the Secret visionloop, which pods mount" in found["lake gs://b/lake"]["found"]
    assert "no Google credentials" in found["source gs://b/photos"]["found"]
    for check in ("lake gs://b/lake", "write to the lake", "source gs://b/photos"):
        assert found[check]["state"] == "warn" and UNTOLD in found[check]["found"]
    assert found["Secret visionloop"]["state"] == "ok"
    host = "x" * 64  # longer than a name can be: no resolver is asked
    found = doctor(**sections, catalog=f"postgresql://u@{host}/lake")
    assert f"host {host} is not known here" in found["lake gs://b/lake"]["found"]


def test_a_slip_in_a_folder_of_this_machine_is_still_found_beside_a_cluster(
    doctor: Callable[..., Findings], tmp_path: Path
) -> None:
    source = f"{tmp_path}/nowhere"
    found = doctor(cluster={"volume": "lake:/mnt/elsewhere"}, sources=[{"uri": source}])
    assert found[f"source {source}"]["state"] == "fail"
    assert found["write to the lake"]["state"] == "ok"


def test_an_unknown_namespace_ends_the_checks(doctor: Callable[..., Findings]) -> None:
    found = doctor("--namespace", "nowhere", name="loop")
    assert list(found)[-1] == "namespace nowhere"
    assert found["namespace nowhere"]["state"] == "fail"
