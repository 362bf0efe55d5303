"""Where a loop's newest report lies in the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionloop.lake import Lake

FOLDER = "reports"


def report_uri(lake: Lake) -> str:
    """Return the URI of the page that the stage `report` leaves: each loop of a lake has its own.

    Args:
        lake: The lake.
    """
    return lake.path(FOLDER, f"{lake.loop}.html")
