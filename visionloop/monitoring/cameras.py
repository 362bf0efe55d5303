"""Which camera a sample came from, and where it was, by the usual names of metadata's columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

_LATITUDE, _LONGITUDES = ("latitude", "lat"), ("longitude", "lon", "lng", "long")


def camera_column(metadata: pa.Table | None, names: Sequence[str]) -> str:
    """Return the first of some columns that holds the name of a camera; "" for none.

    Args:
        metadata: Table ``metadata``, or None.
        names: Columns, the most telling one first.
    """
    if metadata is None:
        return ""
    for name in names:
        if name not in metadata.column_names:
            continue
        kind = metadata.schema.field(name).type
        told = pa.types.is_string(kind) or pa.types.is_integer(kind)
        if told and metadata[name].null_count < metadata.num_rows:
            return name
    return ""


def camera_names(metadata: pa.Table, column: str) -> pa.ChunkedArray:
    """Return the camera of each row of ``metadata`` as text; null where nobody says."""
    named = pc.utf8_trim_whitespace(metadata[column].cast(pa.string()))
    return pc.if_else(pc.equal(named, ""), None, named)


def by_camera(cameras: pa.ChunkedArray) -> Iterator[tuple[str, slice]]:
    """Yield each camera with its rows, in one pass, however many cameras there are.

    Args:
        cameras: The camera of each row, sorted, without nulls.
    """
    runs = pc.run_end_encode(cameras.combine_chunks())
    begin = 0
    for camera, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield camera, slice(begin, end)
        begin = end


def place_columns(metadata: pa.Table | None) -> list[tuple[str, str]]:
    """Return the pairs of columns that hold latitude and longitude in degrees.

    Args:
        metadata: Table ``metadata``, or None.
    """
    if metadata is None:
        return []
    numbers = set(_numbers(metadata))
    pairs = []
    for name in sorted(numbers):
        for ending in _LATITUDE:
            prefix = name.removesuffix(ending)
            if name == prefix or (prefix and not prefix.endswith("_")):
                continue
            pairs += [(name, prefix + one) for one in _LONGITUDES if prefix + one in numbers][:1]
            break
    return pairs


def _numbers(metadata: pa.Table) -> Iterable[str]:
    for field in metadata.schema:
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            yield field.name
