"""Which samples people are asked about: a CSV file that a spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visionloop.labeling.tables import labels_of_files
from visionloop.lake.storage import local_path

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

COLUMNS = ("sample_id", "file", "purpose", "label")


def named(names: Sequence[str], at_most: int = 5) -> str:
    """Return the first names as text, and how many more there are."""
    more = len(names) - at_most
    shown = ", ".join(names[:at_most])
    return f"{shown} and {more} more" if more > 0 else shown


def request_uri(lake: Lake, round_id: str) -> str:
    """Return where the request file of a round lies."""
    return lake.path("label_requests", f"{lake.loop}-{round_id}.csv")


def answers_uri(config: LoopConfig, lake: Lake, round_id: str) -> str:
    """Return where the answers are read from: `labeling.labels`, or the request file itself.

    Args:
        config: The loop's configuration.
        lake: The loop's lake.
        round_id: The round that asks.
    """
    return config.labeling.labels or request_uri(lake, round_id)


def write_requests(
    lake: Lake, round_id: str, wanted: Sequence[tuple[str, str]], uris: Mapping[str, str]
) -> str:
    """Write the request file of a round; answers that it already holds are kept.

    Args:
        lake: The lake.
        round_id: The round.
        wanted: ``(sample_id, purpose)`` in the order in which people should see them.
        uris: Where each sample lies.

    Returns:
        The file's URI.
    """
    uri = request_uri(lake, round_id)
    answered: dict[str, str] = {}
    if lake.storage.exists(uri):
        answered, _ = labels_of_files(uri, {}, sample_ids=[sample for sample, _ in wanted])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample_id, purpose in wanted:
        place = uris.get(sample_id, "")
        shown = str(local_path(place)) if place.startswith("file://") else place
        writer.writerow([sample_id, shown, purpose, answered.get(sample_id, "")])
    lake.storage.write(uri, text.getvalue().encode())
    return uri
