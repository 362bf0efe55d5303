"""What a stage leaves for the person who opens its run: KFP's artifacts, by their shape alone.

The engine does not import kfp: a stage takes any object with these attributes, or None when it is
called without a pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

# The KFP UI cuts a Markdown page here.
MARKDOWN_LIMIT = 400_000


class Artifact(Protocol):
    """A file that a task leaves, or takes."""

    path: str
    uri: str
    metadata: dict[str, Any]


class MetricsArtifact(Protocol):
    """KFP's Metrics: named numbers that the run list shows."""

    def log_metric(self, metric: str, value: float) -> None:
        """Record a number."""


class ClassificationMetricsArtifact(Protocol):
    """KFP's ClassificationMetrics: a square confusion matrix."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Record a confusion matrix, rows true and columns predicted."""


def log_metrics(artifact: MetricsArtifact | None, values: Mapping[str, Any]) -> None:
    """Record numbers; what is not a finite number is left out, since it would crash the task."""
    if artifact is None:
        return
    for name, value in values.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            artifact.log_metric(name, float(value))


def log_confusion(
    artifact: ClassificationMetricsArtifact | None,
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
) -> None:
    """Record a confusion matrix of plain integers."""
    if artifact is not None and classes:
        artifact.log_confusion_matrix(
            [str(name) for name in classes], [[int(n) for n in row] for row in counts]
        )


def write_page(artifact: Artifact | None, text: str) -> None:
    """Write a Markdown or HTML page."""
    if artifact is not None:
        path = Path(artifact.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_dataset(artifact: Artifact | None, rows: pa.Table) -> None:
    """Write a table as Parquet, with its number of rows in the artifact's metadata."""
    if artifact is not None:
        import pyarrow.parquet as pq

        path = Path(artifact.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
        artifact.metadata["rows"] = rows.num_rows
        artifact.metadata["columns"] = ", ".join(rows.column_names)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; pipes and line breaks in cells are escaped."""

    def cell(value: object) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    lines = [
        "| " + " | ".join(cell(name) for name in header) + " |",
        "|" + "|".join(" --- " for _ in header) + "|",
    ]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)
