"""What a classifier answered, as rows of the table ``predictions``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visionloop.lake.schemas import arrow_schema


def predicted_rows(
    sample_ids: Sequence[str] | pa.ChunkedArray,
    probabilities: NDArray[np.float32],
    model_id: str,
    classes: Sequence[str],
    predicted_at: datetime | pa.ChunkedArray,
) -> pa.Table:
    """Return rows of ``predictions`` without round and run.

    Args:
        sample_ids: The n samples.
        probabilities: float32 [n, C], in the order of the classes.
        model_id: The model that answered.
        classes: Its classes.
        predicted_at: When: one time for all, or n of them.
    """
    n, width = len(sample_ids), len(classes)
    values = np.ascontiguousarray(probabilities, dtype=np.float32).reshape(n, width)
    best = values.argmax(axis=1) if n else np.zeros(0, dtype=np.intp)
    schema = arrow_schema("predictions")

    def column(name: str, values: Any) -> Any:
        kind = schema.field(name).type
        return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)

    at = [predicted_at] * n if isinstance(predicted_at, datetime) else predicted_at
    return pa.table(
        {
            "sample_id": column("sample_id", sample_ids),
            "model_id": column("model_id", [model_id] * n),
            "label": column("label", [classes[i] for i in best]),
            "confidence": column("confidence", values.max(axis=1) if n else []),
            "probabilities": pa.ListArray.from_arrays(
                np.arange(n + 1, dtype=np.int32) * width, values.ravel()
            ),
            "predicted_at": column("predicted_at", at),
        }
    )
