"""A person tries each receiver, and sends what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring.notifying.receiving import Receiver, flag, receiver, write
from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.monitoring.notifying import delivery


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(delivery, "_PAUSE", 0.01)
    with receiver() as held:
        yield held


def config(folder: Path, *urls: str) -> str:
    to = [{"name": f"n{i}", "url": url} for i, url in enumerate(urls)]
    path = folder / "loop.yaml"
    path.write_text(
        json.dumps({"name": "test", "lake": str(folder / "lake"), "notify": {"to": to}})
    )
    return str(path)


def test_a_test_event_is_sent_once_to_each_and_what_came_back_is_told(
    tmp_path: Path, hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as broken:
        broken.status = 500
        path = config(tmp_path, hook.url, broken.url)
        assert main(["notify", "--test", "--config", path]) == 1
        said = capsys.readouterr().out
        assert "n0: took it" in said and "n1: did not take it" in said and "HTTP 500" in said
        assert len(hook.requests) == len(broken.requests) == 1
    assert hook.taken[0]["type"] == "org.visionloop.test"
    assert not (tmp_path / "lake").exists()
    assert main(["notify", "--test", "--json", "--config", config(tmp_path, hook.url)]) == 0
    assert json.loads(capsys.readouterr().out)["receivers"][0]["taken"]


def test_what_waits_is_sent_at_once(
    tmp_path: Path, hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, hook.url)
    write(Lake.open(str(tmp_path / "lake"), loop="test"), "flags", flag("unreadable", "a"))
    hook.status = 503
    assert main(["notify", "--config", path]) == 1
    assert "0 events taken, 1 waiting" in capsys.readouterr().out
    hook.status = 200
    assert main(["notify", "--config", path]) == 0
    assert len(hook.taken) == 1


def test_a_configuration_that_names_nobody_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["notify", "--config", config(tmp_path)]) == 2
    assert "names nobody" in capsys.readouterr().err
