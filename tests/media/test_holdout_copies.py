"""What shows a picture of the holdout again is kept out of the pool, whenever it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance

from tests.media.pictures import encoded
from visionloop.lake import Lake
from visionloop.lake.storage import name_of
from visionloop.media import copies
from visionloop.stages.ingest import ingest


class Loop:
    """A loop with one folder."""

    def __init__(self, folder: Path, **holdout: Any) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        self.config = {
            "name": "test",
            "lake": str(folder / "lake"),
            "sources": [{"uri": str(self.source)}],
            "holdout": {"fraction": 0.25, "min_samples": 5} | holdout,
        }

    def put(self, pictures: dict[str, Image.Image], **jpeg: Any) -> None:
        for name, picture in pictures.items():
            data = encoded(picture, "JPEG", **({"quality": 92} | jpeg))
            (self.source / f"{name}.jpg").write_bytes(data)

    def ingest(self) -> dict[str, str]:
        """Return the split of each sample by the name of its file."""
        ingest(config=json.dumps(self.config), run_id="run")
        self.lake = Lake.open(str(self.config["lake"]), loop="test")
        rows = self.lake.read("samples").to_pylist()
        self.ids = {row["sample_id"]: name_of(row["uri"])[:-4] for row in rows}
        return {self.ids[row["sample_id"]]: row["split"] for row in rows}

    def flagged(self) -> dict[str, str]:
        """Return the evidence of each sample that was flagged as a copy."""
        flags = self.lake.read("flags", where="kind == 'holdout_copy'").to_pylist()
        return {self.ids[flag["subject"]]: flag["evidence"] for flag in flags}


def originals(first: int, end: int) -> dict[str, Image.Image]:
    """Return pictures of large shapes, as photographs have them, by name."""
    found = {}
    for seed in range(first, end):
        rng = np.random.Generator(np.random.PCG64(seed))
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        found[f"o{seed}"] = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
    return found


def copies_of(name: str, picture: Image.Image) -> dict[str, Image.Image]:
    w, h = picture.size
    cropped = picture.crop((w // 20, h // 25, w, h - h // 20))
    return {
        f"{name}-smaller": picture.resize((w // 2, h // 2), Image.Resampling.LANCZOS),
        f"{name}-brighter": ImageEnhance.Brightness(picture).enhance(1.1),
        f"{name}-cropped": cropped,
        f"{name}-cropped-smaller": cropped.resize((w * 3 // 4, h * 3 // 4)),
    }


def test_copies_that_come_later_are_reserved_and_others_stay(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.put(originals(0, 20))
    first = loop.ingest()
    held = {name for name, split in first.items() if split == "holdout"}
    assert len(held) == 5 and set(first.values()) == {"holdout", "pool"}
    for name, picture in originals(0, 20).items():
        loop.put(copies_of(name, picture), quality=70)
        loop.put({f"{name}-re-encoded": picture}, quality=50)
    loop.put(originals(20, 30))
    second = loop.ingest()
    assert {name: second[name] for name in first} == first
    reserved = {name for name, split in second.items() if split == "reserved"}
    assert reserved == {name for name in second if "-" in name and name.split("-")[0] in held}
    assert len(reserved) == 5 * len(held)
    told = loop.flagged()
    assert set(told) == reserved
    by_name = {name: sample_id for sample_id, name in loop.ids.items()}
    assert all(by_name[name.split("-")[0]] in evidence for name, evidence in told.items())
    # A third ingest changes nothing.
    assert loop.ingest() == second
    assert set(loop.flagged()) == reserved


def test_copies_of_the_same_delivery_are_reserved(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.put(originals(0, 12))
    for name, picture in originals(0, 12).items():
        loop.put({f"{name}-cropped": copies_of(name, picture)[f"{name}-cropped"]})
    splits = loop.ingest()
    held = {name for name, split in splits.items() if split == "holdout"}
    assert held
    for name in held:
        other = name.removesuffix("-cropped") if "-" in name else f"{name}-cropped"
        assert splits[other] in ("reserved", "holdout")


def test_an_earlier_sample_whose_copy_joins_the_holdout_is_reserved(tmp_path: Path) -> None:
    loop = Loop(tmp_path, min_samples=12, max_samples=12, fraction=0.5)
    loop.put(originals(0, 8))
    early = loop.ingest()
    with loop.lake.run(stage="select") as run:  # from here on nobody moves into the holdout
        some = [one for one, name in loop.ids.items() if early[name] == "pool"][:1]
        run.append("selections", pa.table({"sample_id": some, "rank": [0]}))
        run.commit()
    pool = [name for name, split in early.items() if split == "pool"]
    for name in pool:
        loop.put({f"{name}-cropped": copies_of(name, originals(0, 8)[name])[f"{name}-cropped"]})
    loop.put(originals(8, 12))
    splits = loop.ingest()
    joined = {n.split("-")[0] for n, s in splits.items() if s == "holdout" and "-" in n}
    assert joined  # the fingerprints of a cropped copy are too far to keep it from being drawn
    assert all(splits[name] == ("reserved" if name in joined else "pool") for name in pool)


def test_pixels_can_be_left_out(tmp_path: Path) -> None:
    loop = Loop(tmp_path, copy_likeness=1)
    loop.put(originals(0, 20))
    loop.ingest()
    for name, picture in originals(0, 20).items():
        loop.put(copies_of(name, picture))
    assert "reserved" not in loop.ingest().values()


def test_without_thumbnails_the_fingerprints_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    loop.put(originals(0, 20))
    held = {name for name, split in loop.ingest().items() if split == "holdout"}
    table = loop.lake.read("thumbnails")
    with loop.lake.run(stage="test") as run:  # a lake of before there were any
        run.replace("thumbnails", table.slice(0, 0), "sample_id != ''")
        run.commit()
    for name, picture in originals(0, 20).items():
        loop.put({f"{name}-re-encoded": picture}, quality=60)
    splits = loop.ingest()
    assert {n for n, s in splits.items() if s == "reserved"} == {f"{n}-re-encoded" for n in held}
    assert all("no thumbnail" in told for told in loop.flagged().values())


def test_the_rows_do_not_depend_on_the_size_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(folder: str) -> tuple[dict[str, str], dict[str, str]]:
        (tmp_path / folder).mkdir()
        loop = Loop(tmp_path / folder)
        for name, picture in originals(0, 12).items():
            loop.put({name: picture} | copies_of(name, picture))
        return loop.ingest(), loop.flagged()

    usual = told("a")
    monkeypatch.setattr(copies, "_PAIRS", 1)
    assert told("b") == usual and usual[1]
