"""Small pictures in the page hold pixels and nothing else."""

from __future__ import annotations

import base64
import io

from PIL import Image, PngImagePlugin

from visionloop.monitoring.report.thumbnails import thumbnail


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
