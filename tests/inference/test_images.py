from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from visionloop.inference.images import load_images, unreadable_flags


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((6, 6, 3), value, dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def stored(folder: Path, values: range) -> dict[str, str]:
    media = {}
    for value in values:
        data = png(value)
        sample_id = hashlib.sha256(data).hexdigest()
        (folder / f"{value}.png").write_bytes(data)
        media[sample_id] = f"file://{folder}/{value}.png"
    return media


def test_samples_come_in_the_order_of_their_ids_each_with_its_own_pixels(tmp_path: Path) -> None:
    media = stored(tmp_path, range(150))
    found = list(load_images(media, lambda image: image.getpixel((0, 0))[0]))
    assert [loaded.sample_id for loaded in found] == sorted(media)
    for loaded in found:
        assert loaded.uri.endswith(f"/{loaded.value}.png")


def test_the_next_batch_is_decoded_while_the_caller_works_and_no_more_than_that(
    tmp_path: Path,
) -> None:
    media = stored(tmp_path, range(250))
    decoded: list[int] = []
    found = load_images(media, lambda image: decoded.append(image.getpixel((0, 0))[0]))
    for _ in range(64):
        next(found)
    # The caller is busy: nothing is asked for.
    until = time.monotonic() + 20
    while len(decoded) < 64 + 48 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(decoded) == 64 + 48
    found.close()
    assert len(decoded) == 64 + 48, "who stops asking ends the work"


def test_missing_changed_and_truncated_samples_are_named_not_dropped(tmp_path: Path) -> None:
    media = stored(tmp_path, range(4))
    by_value = {uri.rpartition("/")[2]: sample_id for sample_id, uri in media.items()}
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(png(99))
    cut = png(200)[:-20]
    (tmp_path / "cut.png").write_bytes(cut)
    media[hashlib.sha256(cut).hexdigest()] = f"file://{tmp_path}/cut.png"
    found = {loaded.sample_id: loaded for loaded in load_images(media, lambda image: True)}
    assert set(found) == set(media)
    reasons = {loaded.uri.rpartition("/")[2]: loaded.reason for loaded in found.values()}
    assert reasons == {
        "0.png": "missing",
        "1.png": "changed",
        "2.png": "",
        "3.png": "",
        "cut.png": "truncated",
    }
    flags = unreadable_flags([f for f in found.values() if f.reason], stage="infer").to_pylist()
    assert {row["subject"] for row in flags} >= {by_value["0.png"], by_value["1.png"]}
    assert all(row["kind"] == "unreadable" and row["evidence"] for row in flags)
