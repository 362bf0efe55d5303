"""Sidecars that hold something else than a picture's metadata."""

from __future__ import annotations

import json

import pyarrow as pa

from visionloop.monitoring.findings import Findings


def flag_sidecars(metadata: pa.Table | None, new: set[str], findings: Findings) -> None:
    """Flag new samples whose sidecar is no JSON object.

    Args:
        metadata: Table ``metadata`` (sample_id, raw), or None.
        new: Samples to look at.
        findings: Receives the flags.
    """
    if metadata is None:
        return
    for sample, raw in zip(
        metadata["sample_id"].to_pylist(), metadata["raw"].to_pylist(), strict=True
    ):
        if sample in new and raw and not _is_object(raw):
            findings.flag(
                sample,
                "bad_metadata",
                unit="",
                reference="a JSON object of names and values, which a sidecar has to be",
                problem="the sidecar is not a JSON object",
                images=[sample],
                raw=raw[:200],
            )


def _is_object(raw: str) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False
