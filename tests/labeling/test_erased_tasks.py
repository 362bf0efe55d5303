"""Tasks of erased samples at a labelling tool."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.lake import erasable
from tests.lake.erasable import identity
from visionloop.cli import main
from visionloop.lake import Lake

GONE = 0


def test_a_labelling_tool_that_is_out_of_reach_holds_no_erasure_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in os.environ if "LABEL" in one and "TOKEN" in one]:
        monkeypatch.delenv(name)
    lake = erasable.make(tmp_path)
    config = tmp_path / "loop.yaml"
    server = {"provider": "label_studio", "label_studio": {"url": "http://127.0.0.1:9"}}
    config.write_text(json.dumps({"name": "test", "lake": lake.uri, "labeling": server}))
    assert main(["erase", "--config", str(config), identity(GONE), "--yes"]) == 0
    told = capsys.readouterr().out
    assert "tasks at Label Studio were not deleted" in told
    assert "label-studio: task-0; delete these tasks there" in told
    assert identity(GONE) not in str(erasable.content(Lake.open(lake.uri, loop="test")))
