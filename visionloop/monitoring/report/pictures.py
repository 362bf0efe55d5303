"""Names of the pictures that a report shows, and the small pictures that ingest made of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.report.reading import Reader, array
from visionloop.monitoring.report.thumbnails import SMALL, Thumbnail, thumbnail, thumbnails
from visionloop.monitoring.telling import file_name

if TYPE_CHECKING:
    from PIL.Image import Image

# On the map a picture is shown one at a time, at twice this size.
MAP_SIDE = 72


class Pictures:
    """Names and small pictures of some samples, read in one pass over the lake.

    What ingest made of a sample is of its own bytes, whatever lies at its place now, and is the
    same for the same version; only where there is none (an older lake) the media itself is read.
    """

    def __init__(self, reader: Reader, wanted: Collection[str]) -> None:
        """Read them.

        Args:
            reader: The lake.
            wanted: Sample ids.
        """
        self._reader = reader
        ids = pa.array(sorted(set(wanted)), pa.string())
        self._images: dict[str, bytes] = {}
        self._uris: dict[str, str] = {}
        self._made: dict[str, Thumbnail] = {}
        if not len(ids):
            return
        rows = reader.samples.filter(pc.is_in(reader.samples["sample_id"], value_set=ids))
        self._uris = {
            sample: uri or ""
            for sample, uri in zip(
                rows["sample_id"].to_pylist(), rows["uri"].to_pylist(), strict=True
            )
        }
        for batch in reader.batches("thumbnails", "sample_id", "image"):
            mine = batch.filter(pc.is_in(batch["sample_id"].cast(pa.string()), value_set=ids))
            found = zip(mine["sample_id"].to_pylist(), mine["image"].to_pylist(), strict=True)
            self._images.update((sample, image) for sample, image in found if image)

    def name(self, sample_id: str) -> str:
        """Return a sample's file name, the start of its id where it has none."""
        return file_name(self._uris.get(sample_id, "")) or sample_id[:12]

    def uri(self, sample_id: str) -> str:
        """Return where a sample's bytes lie, "" for a sample that is gone."""
        return self._uris.get(sample_id, "")

    def read_media(self, samples: Collection[str]) -> None:
        """Read the media of those that ingest made no small picture of."""
        lost = {self._uris[s]: s for s in samples if s not in self._images and self._uris.get(s)}
        if lost:
            found = thumbnails(self._reader.lake, lost)
            self._made = {lost[uri]: made for uri, made in found.items()}

    def thumbnail(self, sample_id: str) -> Thumbnail | None:
        """Return a sample's picture as a gallery shows it, None where there is none."""
        data = self._images.get(sample_id)
        return thumbnail(data) if data else self._made.get(sample_id)

    def for_map(self, sample_id: str) -> Thumbnail | None:
        """Return a sample's picture as the map shows it, None where there is none."""
        data = self._images.get(sample_id)
        return smaller(data) if data else None


def smaller(data: bytes) -> Thumbnail | None:
    """Return a picture of at most `MAP_SIDE` pixels a side; nothing but pixels is kept."""
    from PIL import Image

    from visionloop.errors import UnreadableMedia
    from visionloop.media.decode import decode

    try:
        image = decode(data, draft=MAP_SIDE).image.convert("RGB")
    except UnreadableMedia:
        return None
    small = max(image.size) <= SMALL
    image.thumbnail((MAP_SIDE, MAP_SIDE), Image.Resampling.BILINEAR)
    return Thumbnail(_coded(image, small=small), small)


def _coded(image: Image, *, small: bool) -> str:
    out = io.BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=70, optimize=True)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def lookup(
    table: pa.Table, samples: Collection[str], *columns: str
) -> dict[str, tuple[object, ...]]:
    """Return some columns of some samples' rows; of several rows the last counts.

    Args:
        table: Has a column sample_id.
        samples: Which.
        columns: Columns to return.
    """
    ids = pa.array(sorted(set(samples)), pa.string())
    rows = table.filter(pc.is_in(array(table["sample_id"]), value_set=ids))
    values = [rows[name].to_pylist() for name in columns]
    return dict(zip(rows["sample_id"].to_pylist(), zip(*values, strict=True), strict=True))
