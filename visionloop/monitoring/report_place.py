"""Where a loop's newest report lies in the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.lake.erasing.beside import REPORTS

if TYPE_CHECKING:
    from visionloop.lake import Lake


def report_uri(lake: Lake) -> str:
    """Return the URI of the page that the stage `report` leaves: each loop of a lake has its own.

    Args:
        lake: The lake.
    """
    return lake.path(REPORTS, f"{lake.loop}.html")
