"""The doctor finds what keeps people from labelling: token, server, images, webhook."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_doctor import findings
from tests.conftest import ROOT
from tests.labeling.media.google import Google, google
from tests.labeling.media.test_endpoint import KEY, endpoint
from tests.media.test_ingest import Loop, picture
from tests.servers import answering

IMAGES = "images for browsers"
TOKEN = "token-of-label-studio"


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that knows one token, as Label Studio answers to it."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            known = self.headers.get("authorization") == f"Token {TOKEN}"
            path = self.path.partition("?")[0].rstrip("/")
            status, value = 200, {}
            if path == "/api/version":
                value = {"release": "1.23.0"}
            elif not known:
                status, value = 401, {"detail": "Invalid token."}
            elif path.endswith("whoami"):
                value = {"id": 1, "email": "anna@example.org", "username": "anna"}
            elif path == "/api/projects":
                value = {"count": 0, "next": None, "previous": None, "results": []}
            else:
                status = 404
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", TOKEN)
    with answering(Handler) as address:
        yield f"http://{address}"


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    made = Loop(tmp_path)
    made.put("a.png", picture(1))
    made.ingest()
    return made


def written(loop: Loop, url: str, **label_studio: Any) -> str:
    """Write a configuration and return its path."""
    section = {"provider": "label_studio", "label_studio": {"url": url, **label_studio}}
    settings = loop.settings | {"labeling": section, "classes": ["cat", "dog"]}
    path = loop.folder / "loop.yaml"
    path.write_text(json.dumps(settings))
    return str(path)


def test_a_loop_that_is_labelled_elsewhere_is_asked_nothing(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    (loop.folder / "loop.yaml").write_text(json.dumps(loop.settings))
    found = findings(capsys, "--config", str(loop.folder / "loop.yaml"))
    assert IMAGES not in found and not any(name.startswith("Label Studio") for name in found)


def test_a_tool_of_ones_own_is_looked_for(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another test of the same process may have imported it.
    monkeypatch.delitem(sys.modules, "folder_tool", raising=False)
    settings = loop.settings | {"labeling": {"provider": "folder_tool:FolderTool"}}
    path = loop.folder / "loop.yaml"
    path.write_text(json.dumps(settings))
    check = "labeling.provider folder_tool:FolderTool"
    found = findings(capsys, "--config", str(path))[check]
    assert found["state"] == "fail" and "no module `folder_tool`" in found["found"]
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    assert findings(capsys, "--config", str(path))[check]["state"] == "ok"


def test_files_without_a_way_to_browsers_are_told_before_there_are_any(
    tmp_path: Path, studio: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(Loop(tmp_path), studio)
    found = findings(capsys, "--config", config)[IMAGES]
    assert found["state"] == "fail" and "no browser reaches" in found["found"]
    assert "labeling.label_studio.media_url" in found["remedy"]
    assert (
        findings(capsys, "--config", written(Loop(tmp_path), studio, media="inline"))[IMAGES][
            "state"
        ]
        == "ok"
    )


def test_server_token_and_project_are_told(
    loop: Loop,
    studio: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = written(loop, studio, media="inline")
    found = findings(capsys, "--config", config)
    server = found[f"Label Studio {studio}"]
    assert server["state"] == "ok" and "1.23.0" in server["found"]
    assert "anna@example.org" in server["found"] and "is made with the first" in server["found"]
    assert found[IMAGES]["found"] == "stand in the tasks themselves"
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", "wrong-token-of-somebody")
    server = findings(capsys, "--config", config)[f"Label Studio {studio}"]
    assert server["state"] == "fail" and "refuses the token" in server["found"]
    assert "VISIONLOOP_LABELSTUDIO_TOKEN" in server["remedy"]
    monkeypatch.delenv("VISIONLOOP_LABELSTUDIO_TOKEN")
    server = findings(capsys, "--config", config)[f"Label Studio {studio}"]
    assert server["state"] == "fail" and "no token" in server["found"]


def test_the_media_endpoint_is_tried_with_a_link(
    loop: Loop,
    studio: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("VISIONLOOP_MEDIA_KEY", raising=False)
    found = findings(capsys, "--config", written(loop, studio))[IMAGES]
    assert found["state"] == "fail" and "media_url" in found["remedy"]
    with endpoint(loop.folder, f"--lake={loop.settings['lake']}") as running:
        config = written(loop, studio, media_url=f"http://127.0.0.1:{running.port}")
        found = findings(capsys, "--config", config)[IMAGES]
        assert found["state"] == "fail" and "openssl rand" in found["remedy"]
        monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", KEY)
        found = findings(capsys, "--config", config)[IMAGES]
        assert found["state"] == "ok" and "image/png" in found["found"]
        monkeypatch.setenv("VISIONLOOP_MEDIA_KEY", "another-key-of-sixteen")
        found = findings(capsys, "--config", config)[IMAGES]
        assert found["state"] == "fail" and "403 forged" in found["found"]
        assert "the same VISIONLOOP_MEDIA_KEY" in found["remedy"]
    found = findings(capsys, "--config", config)[IMAGES]
    assert found["state"] == "warn" and "does not answer here" in found["found"]
    assert "signature" not in json.dumps(found)


@pytest.fixture
def held() -> Iterator[Google]:
    with google() as found:
        yield found


def test_a_signed_url_is_tried_too(
    tmp_path: Path,
    studio: str,
    held: Google,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.bucket_stub import bucket_stub

    with bucket_stub() as (address, bucket):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        generation = bucket.put("in/a.png", picture(1))
        loop = Loop(tmp_path, sources=[{"uri": "gs://photos/in"}])
        loop.ingest()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", held.url)
    monkeypatch.setenv("VISIONLOOP_STORAGE_TIMEOUT", "1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(held.key_file(tmp_path / "key.json")))
    config = written(loop, studio)
    found = findings(capsys, "--config", config)[IMAGES]
    assert found["state"] == "fail" and "answers 404" in found["found"]
    held.objects["photos/in/a.png"] = (picture(1), str(generation))
    found = findings(capsys, "--config", config)[IMAGES]
    assert found["state"] == "ok" and "by signed URL" in found["found"]


def test_before_there_is_a_lake_none_is_made(
    tmp_path: Path, studio: str, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path)
    found = findings(capsys, "--config", written(loop, studio, media="signed"))
    assert found[f"Label Studio {studio}"]["state"] == "ok"
    assert found[IMAGES]["found"] == "none to try yet: the lake is empty"
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(("secret", "state"), [("short", "fail"), ("0123456789abcdef", "ok")])
def test_the_webhooks_secret_is_looked_at_where_there_is_one(
    loop: Loop,
    studio: str,
    secret: str,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", secret)
    found = findings(capsys, "--config", written(loop, studio, media="inline"))
    assert found["Label Studio's webhook"]["state"] == state
