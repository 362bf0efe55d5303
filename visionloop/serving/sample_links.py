"""Which sample an inference is about where its request's image is not known.

A client that knows names it in the header ``X-Sample-Id``, which KServe's logger keeps where
``metadataHeaders`` lists it: the sample's id, for a batch one a row, separated by commas. Clients
use the header for names of their own, too; what is no id links nothing.
"""

from __future__ import annotations

import json
import re

HEADER = "x-sample-id"
_SAMPLE_ID = re.compile(r"[0-9a-f]{64}")


def named_samples(metadata: str, rows: int) -> list[str | None]:
    """Return the sample that a request's headers name for each row.

    Args:
        metadata: The captured headers, ``{name: [value, …]}`` as JSON.
        rows: Number of rows.

    Returns:
        Length `rows`; all None where the header is not there, or names another number of samples.
    """
    nothing: list[str | None] = [None] * rows
    if HEADER not in metadata.lower():
        return nothing
    try:
        held = json.loads(metadata)
    except (ValueError, RecursionError):
        return nothing
    if not isinstance(held, dict):
        return nothing
    for name, value in held.items():
        if name.lower() != HEADER:
            continue
        texts = value if isinstance(value, list) else [value]
        ids = [one.strip().lower() for text in texts for one in str(text).split(",")]
        if len(ids) == rows:
            return [one if _SAMPLE_ID.fullmatch(one) else None for one in ids]
    return nothing
