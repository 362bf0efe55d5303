"""The columns that images are filtered and sorted by: what they hold, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

TEXT, NUMBER, TIME, YES_NO, SET = "text", "number", "time", "yes or no", "set"

# Prefix of the columns of the table `metadata`: a sidecar may name anything.
METADATA = "metadata."

# Columns that hold ids of rounds, which people read and write as numbers.
ROUNDS = ("round", "picked_in")

# What a column without a title of its own is called, and what is said of it.
TITLES = {
    "sample_id": "Image id",
    "uri": "Place",
    "source_uri": "Found at",
    "width": "Width, pixels",
    "height": "Height, pixels",
    "format": "Format",
    "captured_at": "Captured",
    "ingested_at": "Came in",
    "round": "Round of its intake",
    "source": "Source",
    "split": "Split",
    "group_key": "Group",
    "sharpness": "Sharpness",
    "brightness": "Brightness, 0 to 1",
    "contrast": "Contrast, 0 to 0.5",
    "size": "Size, bytes",
    "color_mode": "Colours",
    "saturation": "Saturation, 0 to 1",
    "entropy": "Entropy, bits",
    "attached": "Behind the picture",
    "label": "Label",
    "label_origin": "Label from",
    "objects": "Objects labelled",
    "prediction": "Prediction",
    "confidence": "Confidence as answered, 0 to 1",
    "predicted_objects": "Objects predicted",
    "agrees": "Prediction is the label",
    "flags": "Flags",
    "checks": "Checks",
    "picked_in": "Round that picked it",
    "arm": "Picked by",
    "rank": "Choice, from 0",
}


@dataclass(frozen=True)
class Column:
    """A column of the index.

    Attributes:
        name: As it stands in an address.
        kind: ``text``, ``number``, ``time``, ``yes or no`` or ``set`` (of names).
        title: As people read it, with the unit.
    """

    name: str
    kind: str
    title: str


def column_of(name: str, kind: pa.DataType) -> Column | None:
    """Return the column of an Arrow type, None for a type that cannot be filtered by.

    Args:
        name: Its name.
        kind: Its type.
    """
    title = TITLES.get(name, name.removeprefix(METADATA))
    if name == "flags":
        return Column(name, SET, title)
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(plain) or pa.types.is_large_string(plain):
        return Column(name, TEXT, title)
    if pa.types.is_boolean(plain):
        return Column(name, YES_NO, title)
    if pa.types.is_integer(plain) or pa.types.is_floating(plain):
        return Column(name, NUMBER, title)
    return Column(name, TIME, title) if pa.types.is_timestamp(plain) else None


def told(value: Any) -> str:
    """Return a value as people read it, a number with all the digits that it has.

    Args:
        value: A value of a table; None and a number that is none are empty.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        return moment.isoformat(sep=" ", timespec="auto").removesuffix("+00:00") + " UTC"
    if isinstance(value, np.float32):
        # The shortest decimal that is this number at its own precision: 0.9, not 0.89999998.
        return "" if np.isnan(value) else np.format_float_positional(value, trim="-")
    if isinstance(value, float):
        return "" if value != value else f"{value:.15g}"
    return str(value)


def moment(value: datetime | None) -> str:
    """Return when something happened, to the second."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: times in ISO 8601, a number that is none as null.

    Args:
        value: A value of a table.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, np.float32):
        # By its shortest decimal: 0.9 of 32 bits is 0.9 and not 0.8999999761581421.
        return None if not np.isfinite(value) else float(str(value))
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
