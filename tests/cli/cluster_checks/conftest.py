"""A cluster on which a plain task runs, and the doctor who looks at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.cluster_checks.made import (
    NAMESPACE,
    Findings,
    node,
    thing,
)
from tests.cli.cluster_checks.registry_stub import Registry, registry
from tests.cluster.api_server import ApiServer
from tests.submission.kfp_stub import KfpStub
from visionloop.cli import main


@pytest.fixture
def images() -> Iterator[Registry]:
    with registry() as found:
        found.images |= {"tasks:1", "slim:1"}
        yield found


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster on which a plain task runs."""
    queues = [("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue")]
    with ApiServer(kinds=queues) as found:
        path = found.kubeconfig(tmp_path / "kubeconfig", namespace=NAMESPACE)
        monkeypatch.setenv("KUBECONFIG", str(path))
        found.put(thing("Namespace", NAMESPACE))
        found.put(thing("ServiceAccount", "pipeline-runner"), namespace=NAMESPACE)
        found.put(node("plain"))
        yield found


@pytest.fixture
def doctor(
    server: ApiServer, images: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Findings]:
    """Run the doctor with these sections of loop.yaml; without any, with no configuration."""

    def run(*arguments: str, many_users: bool = False, **sections: Any) -> Findings:
        image = f"{images.host}/tasks:1"
        given = list(arguments)
        if sections:
            (tmp_path / "data").mkdir(exist_ok=True)
            claim = {"volume": f"lake:{tmp_path}"} | sections.pop("cluster", {})
            config = {"lake": str(tmp_path / "data"), "cluster": claim} | sections
            (tmp_path / "loop.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            given += ["--config", str(tmp_path / "loop.yaml")]
        if "--image" not in given:
            given += ["--image", image]
        with KfpStub(single_user=not many_users) as kfp:
            main(["doctor", "--json", "--cluster", "--host", kfp.url, *given])
        return {f["check"]: f for f in json.loads(capsys.readouterr().out)["findings"]}

    return run
