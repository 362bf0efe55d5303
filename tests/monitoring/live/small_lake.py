"""A lake of a few real pictures with something in every table that the live view reads."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
LATITUDE = 47.376886543210123
EVIL = "<script>alert(1)<b>bucket\"'&.png"
MODEL, NEWER = "m-older", "m-just-published"


def picture(seed: int) -> bytes:
    """Return a PNG of 24 x 16 pixels."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def rows(table: str, **columns: object) -> pa.Table:
    """Return rows of a table with the types that it has."""
    schema = arrow_schema(table)
    return pa.table(
        {name: pa.array(held, schema.field(name).type) for name, held in columns.items()}
    )


class SmallLake:
    """A loop's lake with pictures in a folder; ids are in the order in which they came in.

    Args:
        folder: Where it is made.
        number: Pictures; the first one's name is hostile, the last one is the holdout's.
    """

    def __init__(self, folder: Path, number: int = 30) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        self.lake = Lake.open(str(folder / "lake"), loop="test")
        self.ids: list[str] = []
        self.number = 0
        self.add(number)

    def path(self, place: int) -> Path:
        return self.images / (EVIL if place == 0 else f"picture {place:03}.png")

    def add(self, number: int) -> None:
        """Bring pictures in, as a round would."""
        first, self.number = self.number, self.number + number
        data = [picture(place) for place in range(first, self.number)]
        ids = [hashlib.sha256(one).hexdigest() for one in data]
        self.ids += ids
        for place, one in zip(range(first, self.number), data, strict=True):
            self.path(place).write_bytes(one)
        places = list(range(first, self.number))
        with self.lake.run(stage="ingest", round_id="0000") as run:
            run.append(
                "samples",
                rows(
                    "samples",
                    sample_id=ids,
                    uri=[self.path(place).as_uri() for place in places],
                    source_uri=[self.path(place).as_uri() for place in places],
                    width=[24] * number,
                    height=[16] * number,
                    format=["PNG"] * number,
                    captured_at=[START + timedelta(hours=place) for place in places],
                    ingested_at=[START + timedelta(seconds=place) for place in places],
                    source=["<b>bucket</b>"] * number,
                    split=["holdout" if place % 10 == 9 else "pool" for place in places],
                    brightness=[place / 100 for place in places],
                    size=[len(one) for one in data],
                ),
            )
            run.append("thumbnails", rows("thumbnails", sample_id=ids, image=data))
            run.append(
                "metadata",
                pa.table(
                    {
                        "sample_id": ids,
                        "raw": ["{}"] * number,
                        "camera": [
                            f"<i>{'north' if place % 2 else 'south'}</i>" for place in places
                        ],
                        "latitude": [LATITUDE + place for place in places],
                        "wet": [place % 3 == 0 for place in places],
                    }
                ),
            )
            run.append_embeddings("pixels", ids, np.eye(number, 32, dtype=np.float32) + 0.1)
            run.append("checks", rows("checks", subject=ids, generation=[""] * number,
                                      state=["flagged" if p % 5 == 0 else "ok" for p in places],
                                      checked_at=[START] * number))  # fmt: skip
            run.commit(outputs={"space": "pixels"})

    def learn(self) -> None:
        """Label, train, predict and flag: a model that predicted all, and one the holdout alone."""
        ids, n = self.ids, len(self.ids)
        holdout = [one for place, one in enumerate(ids) if place % 10 == 9]
        with self.lake.run(stage="monitor", round_id="0001") as run:
            run.append("labels", rows("labels", sample_id=ids[:10], label=["cat", "dog"] * 5,
                                      origin=["oracle"] * 10, annotator=["ann"] * 10,
                                      created_at=[START] * 10))  # fmt: skip
            run.append(
                "predictions",
                rows(
                    "predictions",
                    sample_id=[*ids, *holdout],
                    model_id=[MODEL] * n + [NEWER] * len(holdout),
                    label=["cat"] * n + ["dog"] * len(holdout),
                    confidence=[0.9] * (n + len(holdout)),
                    probabilities=[[0.9, 0.1]] * (n + len(holdout)),
                    predicted_at=[START] * (n + len(holdout)),
                ),
            )
            run.append(
                "experiments",
                rows(
                    "experiments",
                    model_id=[MODEL, NEWER],
                    arm=["loop", "loop"],
                    classes=[["cat", "dog"]] * 2,
                    trained_at=[START, START + timedelta(days=1)],
                ),
            )
            run.append(
                "flags",
                rows(
                    "flags",
                    subject=[ids[3], ids[3], ids[4]],
                    subject_type=["sample"] * 3,
                    kind=["blurred", "dark", "dark"],
                    score=[0.25, 0.5, 0.5],
                    threshold=[0.75, 0.6, 0.6],
                    evidence=[
                        json.dumps({"measure": "sharpness", "reference": "the pool's median",
                                    "unit": "ratio", "images": [ids[5]], "near": "<u>x</u>"}),
                        "{}",
                        "{}",
                    ],
                    flagged_at=[START] * 3,
                ),
            )  # fmt: skip
            run.append("selections", rows("selections", sample_id=ids[:2], rank=[0, 1],
                                          arm=["selected", "random"], objectives=["{}", "{}"],
                                          selected_at=[START] * 2))  # fmt: skip
            run.commit()
