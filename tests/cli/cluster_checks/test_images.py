"""An image that is missing is found, and one behind a login is not called missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.cluster_checks.registry_stub import Registry, registry
from tests.servers import free_port
from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.images import images
from visionloop.cli.cluster_checks.question import Question
from visionloop.cli.cluster_checks.registry import Reference
from visionloop.errors import InputError


@pytest.fixture(autouse=True)
def _logged_in_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))


@pytest.fixture
def stub() -> Iterator[Registry]:
    with registry() as found:
        found.images.add("team/app:1")
        yield found


def finding(image: str) -> Finding:
    (found,) = images(Question(image=image))
    return found


@pytest.mark.parametrize("login", ["", "anybody"])
def test_an_image_that_is_there_is_found_also_with_a_token_for_anybody(
    stub: Registry, login: str
) -> None:
    stub.login = login
    found = finding(f"{stub.host}/team/app:1")
    assert found.state == "ok" and "sha256:abc" in found.found


@pytest.mark.parametrize("login", ["", "anybody"])
def test_an_image_that_is_missing_fails_with_its_name(stub: Registry, login: str) -> None:
    stub.login = login
    found = finding(f"{stub.host}/team/app:2")
    assert found.state == "fail" and "team/app:2" in found.found and "push" in found.remedy


@pytest.mark.parametrize("login", ["account", "password"])
def test_a_private_registry_is_a_warning_that_it_cannot_be_told(stub: Registry, login: str) -> None:
    stub.login = login
    found = finding(f"{stub.host}/team/app:1")
    assert found.state == "warn" and "cannot tell from here" in found.found
    assert "imagePullSecrets" in found.remedy


@pytest.mark.parametrize("login", ["account", "password"])
@pytest.mark.parametrize("helper", [False, True])
def test_a_login_of_this_machine_tells_what_a_private_registry_has(
    stub: Registry, login: str, helper: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.login = login
    config: dict[str, object] = {"auths": {stub.host: {"auth": "dXNlcjpwYXNz"}}}
    if helper:
        config = {"credHelpers": {stub.host: "made"}}
        program = tmp_path / "docker-credential-made"
        program.write_text('#!/bin/sh\necho \'{"Username": "user", "Secret": "pass"}\'\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert finding(f"{stub.host}/team/app:1").state == "ok"
    missing = finding(f"{stub.host}/team/app:2")
    assert missing.state == "fail" and "no such image" in missing.found


def test_a_registry_that_is_busy_or_away_is_a_warning(stub: Registry) -> None:
    stub.status = 503
    found = finding(f"{stub.host}/team/app:1")
    assert found.state == "warn" and "503" in found.found
    away = finding(f"127.0.0.1:{free_port()}/team/app:1")
    assert away.state == "warn" and "does not answer" in away.found


def test_a_digest_is_asked_for_instead_of_the_tag(stub: Registry) -> None:
    finding(f"{stub.host}/team/app:1@sha256:{'a' * 64}")
    assert stub.asked == [f"/v2/team/app/manifests/sha256:{'a' * 64}"]


@pytest.mark.parametrize(
    ("image", "registry_url", "name", "version"),
    [
        ("python", "https://registry-1.docker.io", "library/python", "latest"),
        ("python:3.11", "https://registry-1.docker.io", "library/python", "3.11"),
        ("team/app", "https://registry-1.docker.io", "team/app", "latest"),
        ("ghcr.io/a/b:1", "https://ghcr.io", "a/b", "1"),
        ("host:5000/a/b/c:1", "https://host:5000", "a/b/c", "1"),
        ("localhost/app:1", "http://localhost", "app", "1"),
        ("eu.pkg.dev/p/r/i@sha256:ab", "https://eu.pkg.dev", "p/r/i", "sha256:ab"),
    ],
)
def test_the_name_of_an_image_is_read_as_runtimes_do(
    image: str, registry_url: str, name: str, version: str
) -> None:
    assert Reference.parse(image) == Reference(registry_url, name, version)


@pytest.mark.parametrize("image", ["ghcr.io/Team/App:1", "ghcr.io/a:", "a b", "ghcr.io//a"])
def test_what_is_no_name_of_an_image_is_refused(image: str) -> None:
    with pytest.raises(InputError, match="no name of an image"):
        Reference.parse(image)
