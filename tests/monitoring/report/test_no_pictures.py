"""Notes and sidecars whose photo is gone are told as what they are, by a report that adds up."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from visionloop.lake import Lake
from visionloop.monitoring.report.data_funnel import Part
from visionloop.monitoring.report.load import load_report
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor


def test_the_funnel_names_them_and_the_rate_and_the_flags_agree(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        Image.linear_gradient("L").rotate(30 * n).save(folder / f"{n}.png")
        (folder / f"note{n}.txt").write_text("what these are")
        (folder / f"gone{n}.jpg.json").write_text('{"camera": "north"}')
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    sources = [{"uri": str(folder)}]
    config = json.dumps({"name": "test", "lake": str(tmp_path / "lake"), "sources": sources})
    ingest(config=config, run_id="r", open_round=True)
    monitor(config=config, round_id="0000")
    data = load_report(Lake.open(str(tmp_path / "lake"), loop="test"), pictures=False)
    funnel = data.rounds[-1].funnel
    assert (funnel.found, funnel.no_picture, funnel.adds_up) == (10, 6, True)
    assert funnel.unreadable == data.flag_counts["unreadable"] == 1
    pictures = data.total.step("samples")
    assert pictures is not None and data.total.adds_up
    assert pictures.rest == (
        Part("files that cannot be decoded", 1),
        Part("notes and other files that are no pictures", 6),
    )
