"""A real Label Studio calls the collector when somebody has answered, and the loop hears of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.labeling.label_studio.conftest import Loop, answer, choice
from tests.labeling.label_studio.real_server import LabelStudio
from tests.serving.conftest import Starter
from tests.serving.conftest import start as start
from visionloop.cli import main
from visionloop.labeling.hints import look
from visionloop.lake.storage import FileStorage

SECRET = "0123456789abcdef-hook"


def wait_for_hint(folder: Path, loop: str, before: bytes) -> dict[str, Any]:
    """Return the next hint of a loop."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = look(FileStorage(), str(folder), loop)
        if found != before:
            told: dict[str, Any] = json.loads(found)
            return told
        time.sleep(0.1)
    raise AssertionError("no hint came")


def test_an_answer_is_heard_of_by_the_webhook(
    loop: Callable[..., Loop],
    server: LabelStudio,
    start: Starter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", SECRET)
    pets = loop()
    pets.lake.rounds.open("run")
    with pets.lake.run(stage="ingest") as run:
        run.commit()
    pets.provider.request("0000", pets.asks(2))
    hints = tmp_path / "hints"
    collector = start("collect", events=str(tmp_path / "events"), label_events=str(hints), port=0)
    path = tmp_path / "loop.yaml"
    path.write_text(pets.config.text())
    command = ["labels", "webhook", "--config", str(path), "--url", collector.url, "--json"]
    for changed in (True, False):
        capsys.readouterr()
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"url": f"{collector.url}/label-studio/pets", "changed": changed}
    first, second = (task["id"] for task in pets.tasks())
    with server.member("anna") as anna:
        answer(anna, first, choice("cat"))
        hint = wait_for_hint(hints, "pets", b"")
        assert (hint["loop"], hint["action"]) == ("pets", "ANNOTATION_CREATED")
        stored = look(FileStorage(), str(hints), "pets")
        answer(anna, second, choice("dog"))
        assert wait_for_hint(hints, "pets", stored)["calls"] == 2
    # What was answered is not in the hint: it is asked of the server.
    assert "choices" not in (hints / "pets.json").read_text()
    metrics = collector.get("/metrics").decode()
    assert 'webhooks_total{outcome="taken"} 2.0' in metrics
    # With another secret Label Studio is refused, and said so to nobody who answers.
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", "another-secret-of-sixteen")
    assert main(command) == 0
    with server.member("anna") as anna:
        made = answer(anna, first, choice("dog"))
        assert made["id"]
    deadline = time.monotonic() + 20
    while b'webhooks_total{outcome="unauthorized"} 1.0' not in collector.get("/metrics"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("provider", "url", "secret", "words"),
    [
        ("csv", "http://x:8090", SECRET, "which calls nobody"),
        ("label_studio", "x:8090", SECRET, "no address of a collector"),
        ("label_studio", "http://x:8090", "", "no secret is there"),
        ("label_studio", "http://x:8090", "short", "fewer than 16 characters"),
    ],
)
def test_what_a_webhook_cannot_be_made_of_is_told(
    provider: str,
    url: str,
    secret: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_WEBHOOK_SECRET", secret)
    labeling = {"provider": provider, "label_studio": {"url": "http://127.0.0.1:9"}}
    path = tmp_path / "loop.yaml"
    path.write_text(json.dumps({"lake": str(tmp_path / "lake"), "labeling": labeling}))
    assert main(["labels", "webhook", "--config", str(path), "--url", url]) == 2
    assert words in capsys.readouterr().err
