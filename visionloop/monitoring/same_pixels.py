"""Files that differ and show the same pixels, and files that hold more than their picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.monitoring.findings import Findings

# Takes URIs; yields (URI, uint8 [height, width, 3]) of those that can be read, one at a time.
ReadPixels = Callable[[list[str]], Iterable[tuple[str, NDArray[np.uint8]]]]

# What no camera attaches to a photograph: a reader of another kind would take the file for its own.
_SUSPICIOUS = ("zip", "html", "php", "pdf", "rar", "7z", "program")


def flag_attached(samples: pa.Table, new: set[str], findings: Findings) -> None:
    """Flag new samples whose file goes on as something else behind the picture.

    Args:
        samples: Table ``samples``; without the column ``attached`` nothing is flagged.
        new: Samples to be checked.
        findings: Receives the flags.
    """
    if "attached" not in samples.column_names:
        return
    for sample, attached in sorted(_pairs(samples, "sample_id", "attached")):
        if sample in new and attached in _SUSPICIOUS:
            findings.flag(
                sample,
                "attached_data",
                unit="",
                reference="a file that ends where its picture ends",
                images=[sample],
                attached=attached,
            )


def flag_pixel_duplicates(
    samples: pa.Table, new: set[str], read_pixels: ReadPixels, findings: Findings
) -> None:
    """Flag new samples whose pixels are those of an earlier one, though their bytes are not.

    The key of a picture's pixels is taken at a reduced scale, so that whole pictures are compared
    before anything is flagged: two at a time are in memory.

    Args:
        samples: Table ``samples``; without the column ``pixels`` nothing is flagged.
        new: Samples to be checked.
        read_pixels: Reads the pictures that confirm it.
        findings: Receives the flags.
    """
    if "pixels" not in samples.column_names:
        return
    alike: dict[Any, list[tuple[bool, str, str]]] = {}
    for sample, uri, *key in _pairs(samples, "sample_id", "uri", "width", "height", "pixels"):
        if key[-1] is not None:
            alike.setdefault(tuple(key), []).append((sample in new, uri or "", sample))
    for members in alike.values():
        # Known samples come first, then the new ones by name, as for near duplicates.
        (_, original_uri, original), *others = sorted(members)
        for is_new, uri, sample in others:
            if not is_new:
                continue
            evidence: dict[str, Any] = {
                "original": original,
                "original_uri": original_uri,
                "unit": "",
                "reference": "the pixels of the earlier picture, one by one",
                "images": [sample, original],
            }
            found = [pixels for _, pixels in read_pixels([original_uri, uri])]
            if len(found) < 2:
                evidence["unconfirmed"] = "the pictures' bytes could not be read"
            elif not np.array_equal(found[0], found[1]):
                continue
            findings.flag(sample, "pixel_duplicate", **evidence)


def _pairs(samples: pa.Table, *names: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(samples[name].to_pylist() for name in names), strict=True)
