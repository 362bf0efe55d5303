"""Metadata that cannot be true."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

# Names under which cameras, EXIF readers and annotation tools write coordinates, in degrees.
_RANGES = {
    "latitude": 90.0,
    "lat": 90.0,
    "gps_latitude": 90.0,
    "longitude": 180.0,
    "lon": 180.0,
    "lng": 180.0,
    "gps_longitude": 180.0,
}
# Clocks of cameras in other time zones may run ahead of UTC; further ahead is a wrong clock.
_AHEAD = timedelta(days=1)


def metadata_problems(
    metadata: pa.Table | None, samples: pa.Table, new: set[str], *, now: datetime
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sample and the evidence of each impossible value among the new samples.

    A capture time in the future, coordinates off the globe, a sidecar that is no JSON object.

    Args:
        metadata: Table ``metadata`` (sample_id, raw, typed columns), or None.
        samples: Table ``samples`` (sample_id, captured_at).
        new: Samples to look at.
        now: Present time in UTC.
    """
    for sample, captured in zip(
        samples.column("sample_id").to_pylist(),
        samples.column("captured_at").to_pylist(),
        strict=True,
    ):
        if sample in new and captured is not None and captured > now + _AHEAD:
            yield sample, {"problem": "captured in the future", "captured_at": captured.isoformat()}
    if metadata is None:
        return
    ids = metadata.column("sample_id").to_pylist()
    for name in metadata.column_names:
        reach = _RANGES.get(name.lower())
        kind = metadata.schema.field(name).type
        if reach is None or not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            continue
        for sample, value in zip(ids, metadata.column(name).to_pylist(), strict=True):
            if sample in new and value is not None and not abs(value) <= reach:
                shown = value if math.isfinite(value) else str(value)
                yield sample, {"problem": f"{name} lies off the globe", name: shown}
    for sample, raw in zip(ids, metadata.column("raw").to_pylist(), strict=True):
        if sample in new and raw and not _is_object(raw):
            yield sample, {"problem": "the sidecar is not a JSON object", "raw": raw[:200]}


def _is_object(raw: str) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False
