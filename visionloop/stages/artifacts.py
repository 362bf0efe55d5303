"""What a stage leaves for the person who opens its run: KFP's artifacts, by their shape alone.

The engine does not import kfp: a stage takes any object with these attributes, or None when it is
called without a pipeline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

# The KFP UI cuts a Markdown page here.
MARKDOWN_LIMIT = 400_000
_CUT = "\n\n*The page ends here: it is longer than can be shown. The lake holds all of it.*\n"


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

    metadata: dict[str, Any]

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Record a confusion matrix, rows true and columns predicted."""


def log_metrics(artifact: MetricsArtifact | None, values: Mapping[str, Any]) -> None:
    """Record numbers as floats, NumPy's too.

    What is not a finite number is left out, since it would crash the task.

    Args:
        artifact: Takes them; None where there is no pipeline.
        values: Numbers by name; texts and None may be among them.
    """
    if artifact is None:
        return
    for name, value in values.items():
        if isinstance(value, Real) and math.isfinite(value):
            artifact.log_metric(name, float(value))


def log_confusion(
    artifact: ClassificationMetricsArtifact | None,
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    title: str = "",
) -> None:
    """Record a confusion matrix of plain integers.

    Args:
        artifact: Takes it; None where there is no pipeline.
        classes: Names of the classes.
        counts: One row a true class, one column a predicted one: as many of either as classes.
        title: What the KFP UI writes above it; empty for the output's name.
    """
    if artifact is not None and classes:
        if title:
            # KFP's launcher writes the output's name there where nothing stands.
            artifact.metadata["display_name"] = title
        artifact.log_confusion_matrix(
            [str(name) for name in classes], [[int(n) for n in row] for row in counts]
        )


def write_page(artifact: Artifact | None, text: str) -> None:
    """Write a Markdown or HTML page.

    Markdown that the KFP UI would cut in the middle of a row ends at a line, and says so.

    Args:
        artifact: Takes it; None where there is no pipeline.
        text: The page; HTML starts with its doctype.
    """
    if artifact is not None:
        if len(text) > MARKDOWN_LIMIT and not text.lstrip().lower().startswith("<!doctype"):
            kept = text[: MARKDOWN_LIMIT - len(_CUT)].rpartition("\n")[0]
            text = kept + _CUT
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


def markdown_text(text: str) -> str:
    """Return data as Markdown that shows it literally: no markup, no HTML of its own."""
    return text.translate({ord(mark): f"&#{ord(mark)};" for mark in "&\\`*_[]<>#"})


def markdown_sentence(text: str) -> str:
    """Return a sentence of ours that may hold data as Markdown: names of settings stay code."""
    parts = re.split(r"(`[\w.]+`)", text)
    return "".join(part if place % 2 else markdown_text(part) for place, part in enumerate(parts))


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
