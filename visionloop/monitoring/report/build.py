"""The report of a lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.report.load import Planted, load_report
from visionloop.monitoring.report.page import render

if TYPE_CHECKING:
    from visionloop.lake import Lake


def build_report(
    lake: Lake,
    *,
    version: str | None = None,
    planted: Planted | None = None,
    thresholds: MonitoringConfig | None = None,
) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        lake: The lake; an empty one gives a page that says so.
        version: Lake version to describe, the newest by default.
        planted: Defects that were put in on purpose, ``{round id: {kind: n}}``, shown beside what
            was found; by default those that a demo left in the lake.
        thresholds: When drift counts, and which slices are small.
    """
    if planted is None:
        planted = read_planted(lake)
    return render(load_report(lake, version=version, planted=planted, thresholds=thresholds))


def write_report(
    lake: Lake,
    output: str | Path,
    *,
    version: str | None = None,
    thresholds: MonitoringConfig | None = None,
) -> Path:
    """Write the report to a file and return its path.

    Args:
        lake: The lake.
        output: Path of the file; its folder is made where it is missing.
        version: Lake version to describe, the newest by default.
        thresholds: When drift counts, and which slices are small.

    Raises:
        InputError: The file cannot be written.
    """
    return save_page(build_report(lake, version=version, thresholds=thresholds), output)


def save_page(page: str, output: str | Path) -> Path:
    """Write a page to a file and return its path.

    Args:
        page: The page.
        output: Path of the file; its folder is made where it is missing.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Name a file in a folder that you may write to",
        ) from error
    return path


def read_planted(lake: Lake) -> Planted | None:
    """Return what a demo says that it put in, None where there is no such record."""
    uri = lake.path("demo", "planted.json")
    if not lake.storage.exists(uri):
        return None
    content = json.loads(lake.storage.read(uri))
    return {
        str(round_id): {str(kind): int(n) for kind, n in counts.items()}
        for round_id, counts in content.items()
    }
