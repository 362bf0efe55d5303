"""Small pictures in the page hold pixels and nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.monitoring.report.lakes import START, Rows, sample_id
from visionloop.monitoring.report.build import build_report
from visionloop.monitoring.report.thumbnails import thumbnail, thumbnails


def test_a_thumbnail_is_new_pixels_never_the_file() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "secret")
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "PNG", pnginfo=info)
    assert b"secret" in out.getvalue()
    made = thumbnail(out.getvalue())
    assert made is not None
    assert made.small
    assert b"secret" not in base64.b64decode(made.uri.partition(",")[2])
    assert thumbnail(b"no image") is None


def test_a_confidence_that_is_no_number_does_not_take_the_page_away(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.pictures(range(3))
    rows.embeddings(range(3))
    said = zip(range(3), (0.5, math.nan, None), strict=True)
    rows.write(
        "infer",
        predictions=[
            {
                "sample_id": sample_id(n),
                "model_id": "imported",
                "label": "cat",
                "confidence": sure,
                "predicted_at": START,
            }
            for n, sure in said
        ],
    )
    assert '"confidence":[500,-1,-1]' in build_report(rows.lake)


def test_a_bucket_that_nobody_here_may_read_takes_no_other_picture_away(
    tmp_path: Path,
    without_google: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VISIONLOOP_LOG", "json")
    rows = Rows(tmp_path)
    rows.pictures(range(1))
    there = tmp_path / "there.jpg"
    Image.new("RGB", (20, 20), "red").save(there)
    kept, lost, found = "gs://bucket/0.jpg", "gs://bucket/1.jpg", there.as_uri()
    made = thumbnails(rows.lake, {kept: sample_id(0), lost: sample_id(1), found: ""})
    assert made.keys() == {kept, found}
    # As all lines of the log are: JSON where it is asked for, without what is secret.
    [said] = [json.loads(one) for one in capsys.readouterr().err.splitlines()]
    assert said["level"] == "warning"
    why = "no Google credentials were found"
    assert said["message"].startswith(f"2 pictures cannot be shown: {why}")
