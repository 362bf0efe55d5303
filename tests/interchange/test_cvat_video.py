"""Tracks of CVAT become boxes of the frames that the lake has of a video."""

from __future__ import annotations

import json
from pathlib import Path

from tests.interchange.test_cvat import VIDEO, at, document, track
from tests.media.sources.making import video
from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.stages.ingest import ingest


def test_the_frames_of_a_video_in_the_lake_get_the_boxes_of_its_tracks(tmp_path: Path) -> None:
    video(tmp_path / "videos" / "clip.mp4", 50)
    config = tmp_path / "loop.yaml"
    source = {"uri": str(tmp_path / "videos"), "video": {"every": 0.4}}
    settings = {"name": "test", "lake": str(tmp_path / "lake"), "sources": [source]}
    config.write_text(json.dumps(settings))
    ingest(config=str(config))
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    places = {
        row["sample_id"]: row["uri"][-12:-4]
        for row in lake.read("files").to_pylist()
        if row["sample_id"]
    }
    assert sorted(places.values()) == ["00000000", "00000010", "00000020", "00000030", "00000040"]
    meta = VIDEO.format(step="").replace("<stop_frame>12<", "<stop_frame>49<")
    meta = meta.replace("<width>200<", "<width>160<").replace("<height>100<", "<height>96<")
    # Drawn in frames that the lake does not have, and seen in two that it has.
    tracks = track(at(5, 30), at(25, 50), at(28, 50, outside=1))
    (tmp_path / "annotations.xml").write_text(document(tracks, meta=meta))
    words = ["import", str(tmp_path / "annotations.xml"), "--format", "cvat", "--no-ingest"]
    assert main([*words, "--config", str(config)]) == 0
    rows = lake.read("labels").to_pylist()
    found = {places[row["sample_id"]]: row["boxes"] for row in rows}
    assert {frame: [box["x_min"] for box in boxes] for frame, boxes in found.items()} == {
        "00000010": [35.0],
        "00000020": [45.0],
    }
    assert {row["task"] for row in rows} == {"detection"}
