"""Metadata that contradict the picture, each other, or what is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.cameras import by_camera, camera_column, camera_names, place_columns
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.jumps import jumps
from visionloop.monitoring.sample_config import SampleThresholds

_SIZES = (("width", "height"), ("image_width", "image_height"))
_HOUR = 3600.0
_ORDER = ("camera", "captured_at", "sample_id")


def flag_contradictions(
    metadata: pa.Table | None,
    samples: pa.Table,
    new: set[str],
    thresholds: SampleThresholds,
    findings: Findings,
) -> None:
    """Flag new samples whose time, place or size cannot be true.

    Args:
        metadata: Table ``metadata`` (sample_id, typed columns), or None.
        samples: Table ``samples`` (sample_id, captured_at, ingested_at, width, height).
        new: Samples to look at; places are compared with those of earlier samples, too.
        thresholds: Speed, distance, tolerance of clocks, earliest date, columns of cameras.
        findings: Receives the flags.
    """
    # Of a million samples only those in question become objects of Python's.
    only = pa.array(list(new), pa.string())
    come = samples.filter(pc.is_in(samples["sample_id"], value_set=only))
    _flag_times(come, thresholds, findings)
    if metadata is None:
        return
    told = metadata.filter(pc.is_in(metadata["sample_id"], value_set=only))
    off = _flag_places(told, findings)
    _flag_sizes(told, come, findings)
    _flag_jumps(metadata, samples, only, off, thresholds, findings)


def _flag_times(samples: pa.Table, thresholds: SampleThresholds, findings: Findings) -> None:
    earliest = datetime.fromisoformat(thresholds.captured_after).replace(tzinfo=UTC)
    captured_at = samples["captured_at"]
    ahead_of = pc.subtract(captured_at, pc.coalesce(samples["ingested_at"], findings.now))
    tolerance = timedelta(hours=thresholds.clock_tolerance_hours) - timedelta(microseconds=1)
    odd = samples.filter(
        pc.or_(pc.less(captured_at, earliest), pc.greater(ahead_of, pa.scalar(tolerance)))
    )
    names = ("sample_id", "captured_at", "ingested_at")
    for sample, captured, ingested in zip(*(odd[n].to_pylist() for n in names), strict=True):
        come = ingested or findings.now
        ahead = (captured - come).total_seconds() / _HOUR
        told = {"captured_at": captured.isoformat(), "images": [sample]}
        if ahead > thresholds.clock_tolerance_hours:
            findings.flag(
                sample,
                "future_time",
                score=ahead,
                threshold=thresholds.clock_tolerance_hours,
                unit="hours",
                reference="the time at which it was ingested, by this machine's clock",
                problem="captured in the future",
                ingested_at=come.isoformat(),
                **told,
            )
        elif captured < earliest:
            findings.flag(
                sample,
                "implausible_time",
                score=(earliest - captured).total_seconds() / _HOUR / 24,
                threshold=0.0,
                unit="days",
                reference=f"the date {thresholds.captured_after}, before which nothing was "
                "captured (`captured_after`)",
                problem="captured before there was a camera",
                **told,
            )


def _flag_places(metadata: pa.Table, findings: Findings) -> set[str]:
    """Flag coordinates off the globe, and the place 0, 0 of a receiver without a fix."""
    off: set[str] = set()
    for latitude, longitude in place_columns(metadata):
        odd = metadata.filter(_odd_places(metadata[latitude], metadata[longitude]))
        columns = (odd[name].to_pylist() for name in ("sample_id", latitude, longitude))
        for sample, north, east in zip(*columns, strict=True):
            for name, value, reach in ((latitude, north, 90.0), (longitude, east, 180.0)):
                if value is None or abs(value) <= reach:
                    continue
                off.add(sample)
                finite = math.isfinite(value)
                findings.flag(
                    sample,
                    "impossible_place",
                    score=abs(value) if finite else None,
                    threshold=reach,
                    unit="degrees",
                    reference="the globe: latitudes up to 90 and longitudes up to 180 degrees",
                    problem=f"{name} lies off the globe",
                    images=[sample],
                    **{name: value if finite else str(value)},
                )
            if north == 0 and east == 0:
                off.add(sample)
                findings.flag(
                    sample,
                    "impossible_place",
                    unit="degrees",
                    reference="the place 0, 0, which receivers write before they know where they "
                    "are",
                    problem=f"{latitude} and {longitude} are exactly 0",
                    images=[sample],
                )
    return off


def _odd_places(north: pa.ChunkedArray, east: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which places are off the globe, not finite, or exactly 0, 0."""
    places = [one.cast(pa.float64(), safe=False) for one in (north, east)]
    off = [
        # What is no number is within nothing.
        pc.fill_null(pc.invert(pc.less_equal(pc.abs(one), reach)), False)
        for one, reach in zip(places, (90.0, 180.0), strict=True)
    ]
    nowhere = [pc.fill_null(pc.equal(one, 0.0), False) for one in places]
    return pc.or_(pc.or_(*off), pc.and_(*nowhere))


def _flag_sizes(metadata: pa.Table, samples: pa.Table, findings: Findings) -> None:
    for pair in _SIZES:
        if not set(pair) <= set(metadata.column_names):
            continue
        if not all(_is_number(metadata.schema.field(name).type) for name in pair):
            continue
        told = metadata.select(["sample_id", *pair]).rename_columns(["sample_id", "w", "h"])
        both = samples.select(["sample_id", "width", "height"]).join(
            told, "sample_id", join_type="inner"
        )
        w, h, width, height = (
            both[name].cast(pa.float64(), safe=False) for name in ("w", "h", "width", "height")
        )
        as_told = pc.and_(pc.equal(w, width), pc.equal(h, height))
        # A picture that is stored lying and shown upright is no contradiction.
        turned = pc.and_(pc.equal(w, height), pc.equal(h, width))
        odd = both.filter(pc.invert(pc.or_(as_told, turned)))
        for row in sorted(odd.to_pylist(), key=lambda row: row["sample_id"]):
            sizes = (row["w"], row["h"], row["width"], row["height"])
            if not all(_is_size(one) for one in sizes):
                continue
            w, h, width, height = sizes
            findings.flag(
                row["sample_id"],
                "size_conflict",
                score=max(abs(w / width - 1), abs(h / height - 1)),
                threshold=0.0,
                unit="share of the side",
                reference="the picture's own pixels",
                problem=f"metadata say {w:g} x {h:g} pixels, the picture has {width} x {height}",
                images=[row["sample_id"]],
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _flag_jumps(
    metadata: pa.Table,
    samples: pa.Table,
    new: pa.Array,
    off: set[str],
    thresholds: SampleThresholds,
    findings: Findings,
) -> None:
    lost = pa.array(sorted(off), pa.string())
    for ids, is_new, captured, latitude, longitude, camera in _ways(
        metadata, samples, new, thresholds
    ):
        sound = ~pc.is_in(ids, value_set=lost).to_numpy() & (np.abs(latitude) <= 90)
        sound &= (np.abs(longitude) <= 180) & ((latitude != 0) | (longitude != 0))
        rows = np.flatnonzero(sound)
        found = jumps(
            captured[rows],
            latitude[rows],
            longitude[rows],
            speed=thresholds.gps_speed_above,
            apart=thresholds.gps_jump_above,
        )
        for jump in found:
            if not is_new[rows[jump.row]]:
                continue
            sample, other = ids[rows[jump.row]].as_py(), ids[rows[jump.other]].as_py()
            findings.flag(
                sample,
                "gps_jump",
                score=jump.speed,
                threshold=thresholds.gps_speed_above,
                unit="km/h",
                reference=f"the camera's picture nearest in time, of {len(rows)} with a place",
                images=[sample, other],
                camera=camera,
                km=round(jump.km) if jump.km >= 10 else jump.km,
                hours=jump.hours,
            )


def _ways(
    metadata: pa.Table, samples: pa.Table, new: pa.Array, thresholds: SampleThresholds
) -> Iterator[tuple[pa.ChunkedArray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]]:
    """Yield each camera with new samples.

    Its ids, which of them are new, capture times in hours, latitudes, longitudes, and its name.
    """
    column = camera_column(metadata, thresholds.camera_columns)
    pairs = place_columns(metadata)
    if not column or not pairs:
        return
    latitude, longitude = pairs[0]
    told = pa.table(
        {
            "sample_id": metadata["sample_id"],
            "camera": camera_names(metadata, column),
            "lat": metadata[latitude].cast(pa.float64(), safe=False),
            "lon": metadata[longitude].cast(pa.float64(), safe=False),
        }
    ).join(samples.select(["sample_id", "captured_at"]), "sample_id", join_type="inner")
    told = told.drop_null().sort_by([(name, "ascending") for name in _ORDER])
    told = told.append_column("is_new", pc.is_in(told["sample_id"], value_set=new))
    wanted = set(pc.unique(told.filter(told["is_new"])["camera"]).to_pylist())
    for camera, rows in by_camera(told["camera"]):
        if camera not in wanted:
            continue
        own = told.slice(rows.start, rows.stop - rows.start)
        hours = own["captured_at"].cast(pa.int64()).to_numpy() / 3.6e9
        finite = np.isfinite(own["lat"].to_numpy()) & np.isfinite(own["lon"].to_numpy())
        own, hours = own.filter(pa.array(finite)), hours[finite]
        yield (
            own["sample_id"],
            own["is_new"].to_numpy(),
            hours,
            own["lat"].to_numpy(),
            own["lon"].to_numpy(),
            camera,
        )
